import collections
import hashlib
import itertools
import math
import random
import re

import numpy as np
import pytest

from lmcourse import core
from lmcourse.datasets import fableworld
from lmcourse.datasets.fableworld import chinese, story, world

# Of the first 10,000 stories of seed 0; it changes only if the language does.
SHA256 = "4167f745abf909fe1b17d321fb0bf9c5de3064d3f9896078872e1c9cec2d43d4"

NUMBERS = "一两三四五六七八九十"
# The measure words that a dictionary gives for these nouns.
MEASURES = {
    "黑熊": "头",
    "毛驴": "头",
    "老鼠": "只",
    "天鹅": "只",
    "李子": "颗",
    "樱桃": "颗",
    "核桃": "颗",
    "无花果": "个",
    "梨": "个",
    "苹果": "个",
    "面包": "个",
    "胡萝卜": "根",
    "饼干": "块",
    "篮子": "个",
    "朋友": "个",
}
SHE = {"艾达", "克拉拉", "弗洛拉", "伊丽丝", "米拉", "蒂尔达"}

# Slots that keep two values, in groups whose worlds have few enough stories to list; each slot is in one of them.
GROUPS = {
    "opening": "theme temper hero_kind hero home opening naming weather time",
    "setting": "theme weather time errand hero_count food colour setting hero",
    "meeting": "theme spot mood friend_kind friend friend_count food meeting hero",
    "dialogue": "theme dialogue plea answer friend_speech hero_speech hero friend hero_kind",
    "ending": "theme temper summing closing lesson ending feeling reason moral",
    "guests": "theme guest_1 guest_2 guest_3 coat_1 coat_2 first second arriving",
}


@pytest.fixture(scope="module")
def stories():
    return fableworld.generate(10_000, seed=0, language="zh")


@pytest.fixture(scope="module")
def binding_stories():
    return fableworld.generate(500, seed=0, language="zh", binding=True)


@pytest.fixture(scope="module")
def oracle():
    return fableworld.FableOracle("zh")


@pytest.fixture(scope="module")
def test_stories():
    return fableworld.load("test", tokens=100_000, language="zh")


@pytest.fixture(scope="module")
def surprisals(oracle, test_stories):
    ids = [oracle.tokenizer.ids_of(tale.tokens) for tale in test_stories]
    return core.token_surprisals_nats(oracle, ids)


# ---- Words without spaces ----


def dangling(shorter, longer):
    """Return what is left of the words of one set after a word of the other that they begin with."""
    return {word[len(start) :] for start in shorter for word in longer if word.startswith(start)}


def is_uniquely_decodable(words):
    """Decide whether no text has two segmentations.

    Reference: Sardinas and Patterson 1953, "A necessary and sufficient condition for unique decomposition of
    coded messages", IRE Convention Record, part 8.
    """
    left, seen = dangling(words, words) - {""}, set()
    while left:
        if left & words:
            return False
        seen |= left
        left = (dangling(words, left) | dangling(left, words)) - seen
    return True


def may_follow(text, words):
    """Return whether a sequence of words can begin with the text, or be it."""
    return any(
        word.startswith(text) or (text.startswith(word) and may_follow(text[len(word) :], words))
        for word in words
    )


def rivals(words):
    """Return the pairs of words of which the longer could be read where the shorter was written."""
    return [
        (short, long)
        for short, long in itertools.permutations(sorted(words), 2)
        if long.startswith(short) and may_follow(long[len(short) :], words)
    ]


def test_the_proof_sees_an_ambiguous_vocabulary():
    # 一起 is one word or two; 下雨天气 is 下雨·天气 and 下·雨天·气. 甲·乙丙 has no second segmentation, but the
    # longest word at its beginning is 甲乙: the longest match needs the stronger proof.
    assert not is_uniquely_decodable({"一", "起", "一起"})
    assert not is_uniquely_decodable({"下雨", "天气", "下", "雨天", "气"})
    assert is_uniquely_decodable({"甲", "甲乙", "乙丙"})
    assert rivals({"甲", "甲乙", "乙丙"}) == [("甲", "甲乙")]
    assert rivals({"一", "一起", "走"}) == []


def test_no_text_has_two_segmentations():
    assert is_uniquely_decodable(set(chinese.words()))


def test_the_longest_word_is_always_the_right_one():
    # If the right word were a shorter one, the words after it would begin with the rest of the longer. None do.
    assert rivals(chinese.words()) == []


def test_the_vocabulary_of_the_proof_is_that_of_the_automata():
    assert set(fableworld.FableTokenizer("zh").tokens) == {*chinese.words(), fableworld.END}


def test_any_sequence_of_words_is_read_back():
    rng, words = random.Random(0), sorted(chinese.words())
    for _ in range(2000):
        tokens = tuple(rng.choices(words, k=12))
        assert chinese.tokenize(chinese.detokenize(tokens), end=False) == tokens


def test_text_and_tokens_round_trip_both_ways(stories, binding_stories):
    for tale in stories[:3000] + binding_stories:
        assert fableworld.tokenize(tale.text, "zh") == tale.tokens
        assert fableworld.detokenize(tale.tokens, "zh") == tale.text


def test_every_prefix_of_a_story_round_trips_as_a_prompt(stories):
    for tale in stories[:5]:
        for stop in range(len(tale.tokens)):
            prompt = fableworld.detokenize(tale.tokens[:stop], "zh")
            assert fableworld.tokenize(prompt, "zh", end=False) == tale.tokens[:stop]


def test_several_stories_are_lines(stories):
    text = "\n".join(tale.text for tale in stories[:3])
    tokens = tuple(token for tale in stories[:3] for token in tale.tokens)
    assert fableworld.tokenize(text, "zh") == tokens
    assert fableworld.detokenize(tokens, "zh") == text


def test_a_word_of_no_fable_is_named():
    assert fableworld.tokenize("艾达骑马", "zh", end=False) == ("艾达", "骑", "马")
    with pytest.raises(ValueError, match=r"words of Fableworld \(zh\); it has no '骑'"):
        fableworld.FableTokenizer("zh").encode("艾达骑马")


def test_a_saved_tokenizer_loads_equal(tmp_path):
    tokenizer = fableworld.FableTokenizer("zh")
    tokenizer.save(tmp_path / "fable.json")
    assert fableworld.FableTokenizer.load(tmp_path / "fable.json").tokens == tokenizer.tokens


# ---- The language ----


def test_stories_are_the_same_everywhere(stories):
    told = "\n".join(" ".join(tale.tokens) for tale in stories)
    assert hashlib.sha256(told.encode()).hexdigest() == SHA256


def test_text_is_written_as_a_book_prints_it(stories, binding_stories):
    for tale in stories[:1000] + binding_stories:
        assert re.fullmatch(r"[\u4e00-\u9fff，。、“”]+", tale.text)
        assert not re.search(r"[，。、][，。、]|“[，。、”]|^”|的的|了了", tale.text)
        assert tale.text[-1] == "。"
        assert tale.text.count("“") == tale.text.count("”")


def test_stories_have_four_to_eight_sentences(stories, binding_stories):
    for tale in stories[:500] + binding_stories:
        assert 4 <= len(tale.sentences) <= 8
        assert "".join(tale.sentences) == tale.text
        assert all(sentence.endswith("。") for sentence in tale.sentences)


def test_numbers_stand_before_the_nouns_measure_word(stories):
    checked = collections.Counter()
    for tale in stories[:2000]:
        for number, measure, *rest in zip(
            tale.tokens, tale.tokens[1:], tale.tokens[2:], tale.tokens[3:], strict=False
        ):
            if number in NUMBERS:
                assert measure in {"只", "头", "个", "颗", "根", "块"}
                if rest[0] in MEASURES:  # otherwise an adjective stands between, or the noun was named before
                    checked[rest[0]] += 1
                    assert measure == MEASURES[rest[0]]
    assert set(checked) >= set(MEASURES) - {"黑熊", "毛驴", "老鼠", "天鹅", "篮子", "朋友"}


def test_animals_and_baskets_are_counted_across_their_adjectives(stories):
    checked = set()
    for tale in stories[:2000]:
        for measure, noun in re.findall(r"一(\w)[^，。]{1,6}?的(黑熊|毛驴|老鼠|天鹅)", tale.text):
            checked.add(noun)
            assert measure == MEASURES[noun]
        assert re.search(r"一个\w色篮子", tale.text)
    assert checked == {"黑熊", "毛驴", "老鼠", "天鹅"}


def test_two_is_never_the_cardinal_that_stands_alone(stories):
    assert "二" not in "".join(chinese.words())
    assert any("两" in tale.tokens for tale in stories[:100])


def test_pronouns_agree_with_the_names(stories):
    for tale in stories[:2000]:
        hero, friend = (chinese.NAMES[tale.slots[role]] for role in ("hero", "friend"))
        said = [token for token in tale.tokens if token in ("他", "她")]
        assert said == ["她" if name in SHE else "他" for name in (hero, friend)]


def test_each_name_and_noun_has_a_word_of_its_own():
    assert set(chinese.NAMES) == set(world.NAMES)
    for table in (chinese.NAMES, chinese.ANIMALS, chinese.FOODS, chinese.COLOURS, *chinese.PHRASES.values()):
        assert len(set(table.values())) == len(table)


def test_sums_add_numbers_told_in_two_earlier_sentences(stories):
    for tale in stories[:2000]:
        told = [
            NUMBERS.index(token) + 1
            for token, label in zip(tale.tokens, tale.labels, strict=True)
            if token in NUMBERS and label in ("noise", "sum")
        ]
        assert told[0] + told[1] == told[2]
        assert tale.labels.count("sum") == 1


def test_binding_names_the_guest_who_wore_the_colour(binding_stories):
    for tale in binding_stories:
        arrived = re.findall(r"一身(\w色)的(\w+?)(?=、|和一身|也来|。)", tale.sentences[3])
        recalled = re.findall(r"(\w色)很配(\w+)", tale.sentences[-2])
        assert len(arrived) == 3
        assert len(recalled) == 2
        assert set(recalled) < set(arrived)


# ---- The same stories, the same labels ----


def meanings(tale):
    """Return, for each sentence, what it tells and which labels it has, but for phrasing and agreement."""
    told = []
    for start, stop in itertools.pairwise((0, *tale.sentence_stops)):
        spans = [s for s in tale.spans if start <= s.start < stop and s.piece.label != "agreement"]
        slots = {name for span in spans for name in span.piece.slots}
        told.append((slots & set(world.meaning(binding=True).slots), set(tale.labels[start:stop])))
    return told


@pytest.mark.parametrize("binding", [False, True])
def test_sentences_line_up_with_the_english_ones(binding):
    pairs = zip(
        *(fableworld.generate(300, seed=3, language=code, binding=binding) for code in ("en", "zh")),
        strict=True,
    )
    for english, told in pairs:
        assert all(told.slots[name] == english.slots[name] for name in world.meaning(binding=binding).slots)
        assert len(meanings(english)) == len(meanings(told))
        for (slots, labels), (zh_slots, zh_labels) in zip(meanings(english), meanings(told), strict=True):
            assert zh_slots == slots
            assert zh_labels - {"agreement", "syntax"} == labels - {"agreement", "syntax"}


def test_an_english_sentence_alone_decides_the_chinese_one_but_for_its_phrasing():
    # No pronoun, measure word or verb depends on what only another sentence tells.
    teller = story.teller("zh")
    ways = [
        {slot.name: (slot.values[i % len(slot.values)]) for slot in chinese.phrasing(False)} for i in range(3)
    ]
    translations, told_again = collections.defaultdict(set), 0
    for english in fableworld.generate(1000, seed=5):
        for number, way in enumerate(ways):
            if english.slots["dialogue"] == "silent":
                way = way | dict.fromkeys(("friend_speech", "hero_speech"), "absent")
            told = teller.tell({**english.slots, **way})
            for sentence, translated in zip(english.sentences, told.sentences, strict=True):
                told_again += (number, sentence) in translations
                translations[number, sentence].add(translated)
    assert max(map(len, translations.values())) == 1
    assert told_again > 1000


def test_every_token_has_one_known_label(stories, binding_stories):
    for tale in stories[:1000] + binding_stories:
        assert len(tale.labels) == len(tale.tokens)
        assert set(tale.labels) <= set(fableworld.LABELS)
    assert not any("binding" in tale.labels for tale in stories)
    assert all("binding" in tale.labels for tale in binding_stories)


def test_copies_were_told_before_and_topic_and_noise_were_not(stories, binding_stories):
    for tale in stories[:1000] + binding_stories:
        told = {"first", "second"}  # which guest is recalled is decided when it is
        for span in tale.spans:
            label = tale.labels[span.start]
            if label in ("copy-name", "copy-attribute", "sum", "binding"):
                assert told.issuperset(span.piece.slots)
            if label in ("topic", "noise"):
                assert not told.issuperset(span.piece.slots)
            if label != "agreement":  # a measure word hints at the noun without telling it
                told.update(span.piece.slots)


def test_copied_names_are_frequent_and_20_to_60_tokens_away(stories):
    copies, names = 0, set(chinese.NAMES.values())
    for tale in stories:
        last = {}
        for index, (token, label) in enumerate(zip(tale.tokens, tale.labels, strict=True)):
            if label == "copy-name":
                copies += 1
                assert 20 <= index - last[token] <= 60
            if token in names:
                last[token] = index
    assert copies >= 0.04 * sum(len(tale.tokens) for tale in stories)


@pytest.mark.parametrize("binding", [False, True])
def test_no_story_is_longer_than_120_tokens(binding):
    # The bound is over all paths of the automaton, not over a sample.
    length = {None: 0}
    automaton = story.teller("zh", binding=binding).automaton
    for node in automaton.nodes:
        length[node] = max((arc.token is not None) + length[arc.next] for arc in node.arcs.values())
    assert length[automaton.start] <= 120


def assert_told_apart(tales):
    assert len({tale.text for tale in tales}) == len({tuple(tale.slots.values()) for tale in tales})


def test_different_slots_give_different_texts(stories):
    assert_told_apart(stories)


@pytest.mark.slow
def test_different_slots_give_different_texts_in_100_000_stories():
    assert_told_apart(fableworld.generate(100_000, seed=1, language="zh"))


# ---- The oracle ----


def brute_force(reduced):
    """Return the probability of each story of a small world, by telling all of them."""
    teller, table = story.Teller(reduced, chinese.CHINESE), collections.Counter()
    for slots, probability in reduced.assignments():
        table[teller.tell(slots).tokens] += probability
    return table


@pytest.mark.parametrize("group", GROUPS)
def test_oracle_equals_brute_force_after_every_prefix(group):
    full = story.full_world("zh", binding=group == "guests")
    reduced = full.reduced(GROUPS[group].split())
    oracle, table = fableworld.FableOracle("zh", world=reduced), brute_force(reduced)
    assert len(table) < 20_000
    assert math.fsum(table.values()) == pytest.approx(1, abs=1e-12)
    entropy = -math.fsum(p * math.log(p) for p in table.values())
    assert oracle.entropy_per_story_nats() == pytest.approx(entropy, abs=1e-12)
    decoder, rows = oracle.decoder([[]]), [()]
    while rows:
        masses = collections.defaultdict(collections.Counter)
        for tokens, probability in table.items():
            if len(tokens) > len(rows[0]):
                masses[tokens[: len(rows[0])]][tokens[len(rows[0])]] += probability
        expected = np.zeros((len(rows), oracle.vocab_size))
        for row, prefix in enumerate(rows):
            shares = np.array(list(masses[prefix].values()))
            expected[row, oracle.tokenizer.ids_of(masses[prefix])] = shares / shares.sum()
        probabilities = np.exp(decoder.log_probs())
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-12)
        grown = [(row, token) for row, p in enumerate(rows) for token in masses[p] if token != fableworld.END]
        decoder.select([row for row, _ in grown])
        decoder.append(oracle.tokenizer.ids_of(token for _, token in grown))
        rows = [(*rows[row], token) for row, token in grown]


def test_the_brute_force_worlds_free_every_slot():
    freed = {name for group in GROUPS.values() for name in group.split()}
    fixed = {"coat_3"}  # with two values for the other coats, a third of its own is always left
    assert freed | fixed == {
        name for binding in (False, True) for name in story.full_world("zh", binding=binding).slots
    }


def test_a_storys_probability_is_that_of_its_slots(oracle, test_stories, surprisals):
    # Were a story told by two assignments of the slots, its probability would be their sum: telling is injective.
    for tale, nats in zip(test_stories, surprisals, strict=True):
        # 120 logarithms of float64, summed: 1e-10 leaves three digits to spare.
        assert nats.sum() == pytest.approx(-oracle.world.log_probability_nats(tale.slots), abs=1e-10)


def test_a_binding_storys_probability_is_that_of_its_slots(binding_stories):
    oracle = fableworld.FableOracle("zh", binding=True)
    ids = [oracle.tokenizer.ids_of(tale.tokens) for tale in binding_stories[:100]]
    for tale, nats in zip(binding_stories, core.token_surprisals_nats(oracle, ids), strict=False):
        assert nats.sum() == pytest.approx(-oracle.world.log_probability_nats(tale.slots), abs=1e-10)


def test_mean_surprisal_is_the_analytic_entropy(oracle, surprisals):
    per_story = np.array([nats.sum() for nats in surprisals])
    standard_error = per_story.std(ddof=1) / math.sqrt(len(per_story))
    assert abs(per_story.mean() - oracle.entropy_per_story_nats()) <= 4 * standard_error


def test_few_hypotheses_are_alive_and_after_a_sentence_only_themes(oracle, stories):
    most = 0
    for tale in stories[:6]:
        ids = oracle.tokenizer.ids_of(tale.tokens)
        for stop in sorted({*range(0, len(ids), 3), *tale.sentence_stops}):
            alive = [slots for slots, _ in oracle.hypotheses(ids[:stop])]
            most = max(most, len(alive))
            if stop in tale.sentence_stops:
                assert {name for a in alive for name in a if a[name] != alive[0][name]} <= {"theme"}
    assert 8 < most <= fableworld.MAX_HYPOTHESES


def test_the_floor_is_mostly_not_noise_and_copies_are_free(oracle, test_stories):
    floor = fableworld.floor_by_label(test_stories[:200], oracle)
    assert floor["noise"].share_of_bits <= 0.30
    assert floor["copy-name"].share_of_tokens >= 0.04
    assert floor["topic"].share_of_bits > floor["noise"].share_of_bits
    # The tokens are certain; what is left is the rounding of normalised float64 weights.
    assert floor["sum"].bits_per_token == pytest.approx(0, abs=1e-12)
    assert floor["copy-attribute"].bits_per_token == pytest.approx(0, abs=1e-12)


def test_a_wrong_measure_word_is_impossible(oracle, stories):
    tale = next(tale for tale in stories if tale.slots["food"] == "carrot")
    tokens = list(tale.tokens)
    at = len(tokens) - 1 - tokens[::-1].index("根")
    tokens[at] = "颗"
    scores = oracle.token_log_probs([oracle.tokenizer.ids_of(tokens)])[0]
    assert np.isfinite(scores[:at]).all()
    assert np.isneginf(scores[at])


# ---- Other views ----


def test_the_true_sentiment_can_be_read_in_the_text(stories):
    data = fableworld.sentiment(stories[:2000], noise=0.0)
    sad = re.compile("难过|遗憾|沮丧|伤心")
    assert data.labels == tuple(int(not sad.search(text)) for text in data.texts)


def test_entities_are_every_name_animal_and_place(stories):
    names, animals = set(chinese.NAMES.values()), set(chinese.ANIMALS.values())
    for tale in stories[:500]:
        by_type = collections.defaultdict(list)
        for entity in fableworld.entities(tale):
            assert entity.text == "".join(tale.tokens[entity.start : entity.stop])
            by_type[entity.type].append(entity.text)
        assert by_type["PERSON"] == [token for token in tale.tokens if token in names]
        assert by_type["ANIMAL"] == [token for token in tale.tokens if token in animals]
        assert len(by_type["PLACE"]) == 2


def test_questions_are_answered_by_their_span(stories):
    for tale in stories[:300]:
        asked = {q.question: q for q in fableworld.questions(tale)}
        for question in asked.values():
            assert question.answer == "".join(tale.tokens[question.start : question.stop])
            assert re.fullmatch(r"[\u4e00-\u9fff]+？", question.question)
        held = int(tale.slots["hero_count"]) + int(tale.slots["friend_count"])
        assert asked["篮子是什么颜色的？"].answer == chinese.COLOURS[tale.slots["colour"]]
        assert next(q.answer for text, q in asked.items() if "一共" in text) == NUMBERS[held - 1]
        met = next(q.answer for text, q in asked.items() if text.endswith("遇见了谁？"))
        assert met == chinese.NAMES[tale.slots["friend"]]


def test_a_summary_is_one_sentence_with_the_sum(stories):
    for tale in stories[:100]:
        told = fableworld.summary(tale)
        held = int(tale.slots["hero_count"]) + int(tale.slots["friend_count"])
        assert re.fullmatch(r"[^。]+。", told)
        assert f"一共有{NUMBERS[held - 1]}" in told


def test_the_tokenizer_spells_questions_and_summaries(stories):
    tokenizer = fableworld.FableTokenizer("zh")
    for tale in stories[:200]:
        for text in [fableworld.summary(tale), *(q.question for q in fableworld.questions(tale))]:
            assert tokenizer.decode(tokenizer.encode(text, end=False)) == text


def test_every_token_of_the_vocabulary_is_used(stories, binding_stories):
    told = {token for tale in stories + binding_stories for token in tale.tokens}
    for tale in stories[:50]:
        for text in [fableworld.summary(tale), *(q.question for q in fableworld.questions(tale))]:
            told.update(fableworld.tokenize(text, "zh"))
    assert told == set(fableworld.FableTokenizer("zh").tokens)
