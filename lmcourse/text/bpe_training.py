"""Learn byte-pair merges: again and again, join the pair of neighbours that occurs most often.

Recounting all pairs for each merge would read the whole text thousands of times. Here each distinct chunk is kept
once with its count, and a merge touches only the chunks that hold its pair. It walks each of them from end to end:
text that the split leaves in chunks of many thousand characters (DNA, say) should be cut into lines first.

Reference: Sennrich, Haddow and Birch 2016, arXiv:1508.07909, section 3.2 and algorithm 1.
"""

import heapq
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise

Pair = tuple[int, int]

# A byte's rank among bytes: those that GPT-2 writes as themselves first; see `lmcourse.text.bpe.byte_characters`.
_PRINTED_AS_THEMSELVES = [
    *range(ord("!"), ord("~") + 1),
    *range(ord("¡"), ord("¬") + 1),
    *range(ord("®"), 256),
]
BYTE_ORDER = bytes([*_PRINTED_AS_THEMSELVES, *(b for b in range(256) if b not in _PRINTED_AS_THEMSELVES)])


def learn_merges(
    chunk_counts: Mapping[bytes, int], num_merges: int, *, min_count: int = 2, progress: bool = False
) -> list[tuple[bytes, bytes]]:
    """Learn merges from counted chunks.

    Of pairs that occur equally often, the one of older parts is merged first: pairs compare by the age of the left
    part, then of the right one. Parts age from the first merge to the last; all single bytes are older,
    in the order of `BYTE_ORDER`. The `tokenizers` library breaks ties in the same way.

    Args:
        chunk_counts: how often each chunk occurs; no merge crosses from one chunk to the next.
        num_merges: how many merges to learn at most.
        min_count: how often a pair must occur to be merged. Neighbours overlap in the count: aaa has two pairs.
        progress: whether to show a progress bar.

    Returns:
        The pairs of parts, in the order they were merged; fewer than asked if the text has no more.

    Example:
        >>> learn_merges({b"low": 5, b"lower": 2, b"newest": 6}, 4)
        [(b'w', b'e'), (b'l', b'o'), (b'e', b'we'), (b'n', b'ewe')]
    """
    from tqdm import tqdm  # only training needs it

    chunks = _Chunks(chunk_counts)
    spelled = [bytes([byte]) for byte in BYTE_ORDER]
    merges: list[tuple[bytes, bytes]] = []
    for _ in tqdm(range(num_merges), desc="merges", disable=not progress):
        pair = chunks.most_frequent_pair(min_count)
        if pair is None:
            break
        chunks.merge(pair, new_part=len(spelled))
        left, right = spelled[pair[0]], spelled[pair[1]]
        spelled.append(left + right)
        merges.append((left, right))
    return merges


class _Chunks:
    """The chunks as they are split now, and the counts that say which pair comes next.

    A part is a number: 0 to 255 for a byte, by its place in `BYTE_ORDER`, then one more for each merge.
    """

    def __init__(self, chunk_counts: Mapping[bytes, int]):
        rank = {byte: i for i, byte in enumerate(BYTE_ORDER)}
        self._chunks = [[rank[byte] for byte in chunk] for chunk in chunk_counts]
        self._counts = list(chunk_counts.values())
        self._pair_counts: dict[Pair, int] = defaultdict(int)
        # May name chunks that have since lost the pair: merging passes over them.
        self._chunks_with: dict[Pair, set[int]] = defaultdict(set)
        for index, (chunk, count) in enumerate(zip(self._chunks, self._counts, strict=True)):
            for pair in pairwise(chunk):
                self._pair_counts[pair] += count
                self._chunks_with[pair].add(index)
        self._heap = [(-count, pair) for pair, count in self._pair_counts.items()]
        heapq.heapify(self._heap)

    def most_frequent_pair(self, min_count: int) -> Pair | None:
        """Return the pair with the highest count, the smallest such pair, or None if none reaches min_count."""
        while self._heap:
            negative, pair = heapq.heappop(self._heap)
            count = self._pair_counts.get(pair, 0)
            if count < min_count:
                continue
            if count == -negative:
                return pair
            # The count fell since the entry was made. Entries are corrected only when they come up, because
            # most falls concern pairs that never do.
            heapq.heappush(self._heap, (-count, pair))
        return None

    def merge(self, pair: Pair, new_part: int) -> None:
        """Join the pair wherever it stands, and bring the counts up to date."""
        changes: dict[Pair, int] = defaultdict(int)
        for index in self._chunks_with.pop(pair):
            old = self._chunks[index]
            new = _join(old, pair, new_part)
            if len(new) == len(old):
                continue
            self._chunks[index] = new
            for gone in pairwise(old):
                changes[gone] -= self._counts[index]
            for made in pairwise(new):
                changes[made] += self._counts[index]
                if new_part in made:
                    self._chunks_with[made].add(index)
        for changed, change in changes.items():
            self._pair_counts[changed] += change
            # Only pairs with the new part can have gained, and they need an entry of their own.
            if change > 0:
                heapq.heappush(self._heap, (-self._pair_counts[changed], changed))


def _join(chunk: list[int], pair: Pair, new_part: int) -> list[int]:
    """Return the chunk with each occurrence of the pair, from the left, replaced by the new part."""
    left, right = pair
    joined: list[int] = []
    for part in chunk:
        if part == right and joined and joined[-1] == left:
            joined[-1] = new_part
        else:
            joined.append(part)
    return joined
