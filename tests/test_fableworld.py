import collections
import dataclasses
import functools
import hashlib
import itertools
import random
import re
import subprocess
import sys

import pytest

from lmcourse.datasets import fableworld
from lmcourse.datasets.fableworld import english, slots, story, world
from lmcourse.text.base import Tokenizer

# Of this generator's first 10,000 stories of seed 0; equal on CPython 3.11, 3.12 and 3.13. Each changes only if its
# language does. Chinese, which is written without spaces, has tests of its own for all that follows.
SHA256 = {
    "en": "237ad3b98d55a2d32c98f94781432545800820b5dd0860f499c62c31c91e66b0",
    "fr": "5fa4e785649e954da86bda0963d3a6db6d801945359803c14d2698f91b66db77",
}

COPIES = ("copy-name", "copy-attribute", "sum", "binding")
NUMBER_WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@functools.cache
def told(language, count, binding=False):
    return fableworld.generate(count, seed=0, language=language, binding=binding)


@pytest.fixture(params=SHA256)
def language(request):
    return request.param


@pytest.fixture
def stories(language):
    return told(language, 10_000)


@pytest.fixture
def binding_stories(language):
    return told(language, 500, binding=True)


@pytest.fixture
def english_stories():
    return told("en", 10_000)


@pytest.fixture
def english_binding_stories():
    return told("en", 500, binding=True)


def longest(automaton):
    """Return an upper bound on a story's tokens: the automaton's longest path."""
    length = {None: 0}
    for node in automaton.nodes:
        length[node] = max((arc.token is not None) + length[arc.next] for arc in node.arcs.values())
    return length[automaton.start]


def test_stories_are_the_same_everywhere(language, stories):
    text = "\n".join(" ".join(tale.tokens) for tale in stories)
    assert hashlib.sha256(text.encode()).hexdigest() == SHA256[language]


def test_the_first_stories_do_not_depend_on_the_count(language, stories):
    assert fableworld.generate(3, seed=0, language=language) == stories[:3]


def test_another_language_would_tell_of_the_same_happenings():
    other = dataclasses.replace(english.ENGLISH, code="xx")
    told = story.Teller(fableworld.full_world(), english.ENGLISH).stories(seed=4)
    retold = story.Teller(fableworld.full_world(), other).stories(seed=4)
    pairs = list(itertools.islice(zip(told, retold, strict=True), 20))
    meaning = world.meaning().slots
    for first, second in pairs:
        assert {name: first.slots[name] for name in meaning} == {name: second.slots[name] for name in meaning}
    assert any(first.slots != second.slots for first, second in pairs)  # the phrasing is its own


@pytest.mark.parametrize("binding", [False, True])
def test_no_story_is_longer_than_120_tokens(language, binding):
    # So that a context of 128 holds any story. The bound is over all paths, not over a sample.
    assert longest(story.teller(language, binding=binding).automaton) <= 120


def test_stories_have_four_to_eight_sentences(stories, binding_stories):
    for tale in stories[:500] + binding_stories:
        assert 4 <= len(tale.sentences) <= 8
        assert len(tale.sentences) == sum(token in ".!?" for token in tale.tokens)
        assert " ".join(tale.sentences) == tale.text


def test_every_token_has_one_known_label(stories, binding_stories):
    for tale in stories[:1000] + binding_stories:
        assert len(tale.labels) == len(tale.tokens)
        assert set(tale.labels) <= set(fableworld.LABELS)
    assert not any("binding" in tale.labels for tale in stories)
    assert all("binding" in tale.labels for tale in binding_stories)


def test_copies_were_told_before_and_topic_and_noise_were_not(stories, binding_stories):
    # A form's first slot is what it tells; the others only inflect it.
    for tale in stories[:1000] + binding_stories:
        known = {"first", "second"}  # which guest is recalled is decided when it is
        for span in tale.spans:
            label = tale.labels[span.start]
            if label in COPIES:
                assert known.issuperset(span.piece.slots)
            if label in ("topic", "noise"):
                assert span.piece.slots[0] not in known
            if label != "agreement":  # "an" hints at the adjective without telling it
                known.add(span.piece.slots[0])


def test_copied_names_are_frequent_and_20_to_60_tokens_away(stories):
    copies = 0
    for tale in stories:
        last = {}
        for index, (token, label) in enumerate(zip(tale.tokens, tale.labels, strict=True)):
            if label == "copy-name":
                copies += 1
                assert 20 <= index - last[token] <= 60
            if token in world.NAMES:
                last[token] = index
    assert copies >= 0.04 * sum(len(tale.tokens) for tale in stories)
    assert len(world.NAMES) <= 12


def test_articles_agree_with_the_word_that_follows(english_stories):
    for tale in english_stories[:2000]:
        for article, following in itertools.pairwise(tale.tokens):
            if article in ("a", "an"):
                vowel = following[0] in "aeio" or following == "unhappy" or following == "honest"
                assert article == ("an" if vowel else "a"), (article, following)


def test_nouns_agree_with_their_numbers(english_stories):
    singular = {food for foods in world.FOODS.values() for food in foods}
    plural = {english.PLURALS.get(food, food + "s") for food in singular}
    for tale in english_stories[:2000]:
        for number, noun in itertools.pairwise(tale.tokens):
            if number in NUMBER_WORDS and noun in singular | plural:
                assert (noun in singular) == (number == "one"), tale.text


def test_pronouns_agree_with_the_hero(english_stories):
    for tale in english_stories[:2000]:
        pronoun = {"feminine": "she", "masculine": "he"}[world.GENDERS[tale.slots["hero"]]]
        assert {token for token in tale.tokens if token in ("he", "she")} == {pronoun}


def test_sums_add_numbers_told_in_two_earlier_sentences(english_stories):
    for tale in english_stories[:2000]:
        numbers = [
            (sentence, NUMBER_WORDS.index(word) + 1)
            for sentence, text in enumerate(tale.sentences)
            if not text.startswith("“")
            for word in re.findall(r"\w+", text)
            if word in NUMBER_WORDS
        ]
        (at_1, first), (at_2, second), (at_3, total) = [n for n in numbers if n[0] < len(tale.sentences) - 1][
            :3
        ]
        assert at_1 < at_2 < at_3
        assert first + second == total
        assert tale.labels.count("sum") == 1


def test_binding_names_the_guest_who_wore_the_colour(english_binding_stories):
    for tale in english_binding_stories:
        arrived = dict(re.findall(r"(\w+) in (\w+)(?=,| and|\.| came)", tale.sentences[3]))
        wearer = {colour: name for name, colour in arrived.items()}
        recalled = re.findall(r"(\w+) suited (\w+)", tale.sentences[-2])
        assert len(wearer) == 3
        assert len(recalled) == 2
        assert all(wearer[colour.lower()] == name for colour, name in recalled)


def test_text_and_tokens_round_trip_both_ways(language, stories, binding_stories):
    for tale in stories[:3000] + binding_stories:
        assert fableworld.tokenize(tale.text, language) == tale.tokens
        assert fableworld.detokenize(tale.tokens, language) == tale.text


def test_every_prefix_of_a_story_round_trips_as_a_prompt(language, stories):
    for tale in stories[:5]:
        for stop in range(len(tale.tokens)):
            prompt = fableworld.detokenize(tale.tokens[:stop], language)
            assert fableworld.tokenize(prompt, language, end=False) == tale.tokens[:stop]


def test_several_stories_are_lines(language, stories):
    text = "\n".join(tale.text for tale in stories[:3])
    tokens = tuple(token for tale in stories[:3] for token in tale.tokens)
    assert fableworld.tokenize(text, language) == tokens
    assert fableworld.detokenize(tokens, language) == text


def test_text_is_written_as_a_book_prints_it(english_stories):
    for tale in english_stories[:500]:
        assert re.fullmatch(r"[A-Z“].*[.”]", tale.text)
        assert not re.search(r"\s[.,”]|“\s|\s{2}|[.!?] [a-z]|“[a-z]", tale.text)
        assert slots.ABSENT not in tale.tokens


def _changed(teller, tale, name, rng):
    """Return the slots with another value for one slot, where its parents and children allow one."""
    slot = teller.world.slots[name]
    row = slot.row(tuple(tale.slots[parent] for parent in slot.parents))
    changed = {**tale.slots, name: rng.choice(row.values)}
    possible = teller.world.log_probability_nats(changed) > float("-inf")
    return changed if possible and changed != tale.slots else None


def test_changing_any_one_slot_changes_the_text(language, stories):
    # That telling loses nothing, seen slot by slot; the oracle's tests have the exact proof for whole stories.
    teller, rng, seen = story.teller(language), random.Random(0), collections.Counter()
    for tale in stories[:60]:
        for name in teller.world.slots:
            changed = _changed(teller, tale, name, rng)
            if changed is not None:
                seen[name] += 1
                assert teller.tell(changed).text != tale.text, name
    alone = {"theme", "dialogue", "ending"}  # what depends on these has to change with them
    assert set(teller.world.slots) - set(seen) <= alone


def _assert_told_apart(tales):
    assert len({tale.text for tale in tales}) == len({tuple(tale.slots.values()) for tale in tales})


def test_different_slots_give_different_texts(stories):
    _assert_told_apart(stories)


@pytest.mark.slow
def test_different_slots_give_different_texts_in_100_000_stories(language):
    _assert_told_apart(fableworld.generate(100_000, seed=1, language=language))


def test_splits_are_drawn_from_the_seeds_that_generate_names():
    for number, split in enumerate(("train", "validation", "test")):
        for seed in (0, 5, 2**64 // 3 - 1):
            assert fableworld.load(split, stories=2, seed=seed) == fableworld.generate(
                2, seed=3 * seed + number
            )


def test_splits_share_no_stories_and_repeats_are_counted(english_stories):
    train, test = fableworld.load("train", stories=300), fableworld.load("test", stories=300)
    assert train == english_stories[:300]
    assert fableworld.overlap(test, train) == 0
    assert fableworld.overlap([*test, train[3], train[3]], train) == 2
    splits = [
        fableworld.load(s, stories=1, seed=n)[0].text for s in ("train", "test", "validation") for n in (0, 1)
    ]
    assert len(set(splits)) == 6


def test_load_stops_at_the_story_that_reaches_the_tokens():
    tales = fableworld.load("validation", tokens=1000, seed=3)
    lengths = [len(tale.tokens) for tale in tales]
    assert sum(lengths) >= 1000 > sum(lengths[:-1])
    assert tales == fableworld.load("validation", stories=len(tales), seed=3)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: fableworld.generate(-1, seed=0), "count .* got -1"),
        (lambda: fableworld.generate(1, seed=-1), "seed .* got -1"),
        (lambda: fableworld.generate(1, seed=0, language="tlh"), "language must be one of .*'tlh'"),
        (lambda: fableworld.load(stories=1, seed=-1), "seed must be between 0 and .* got -1"),
        # The largest seed's splits are seeds 2**64 - 4 to 2**64 - 2 of `generate`: 3 * 6148914691236517205 = 2**64 - 1.
        (
            lambda: fableworld.load(stories=1, seed=2**63),
            f"seed must be between 0 and 6148914691236517204; got {2**63}",
        ),
        (lambda: fableworld.load("dev", stories=1), "split must be one of .*'dev'"),
        (lambda: fableworld.load("test"), "exactly one of tokens and stories"),
        (lambda: fableworld.load("test", stories=1, tokens=1), "exactly one of tokens and stories"),
        (lambda: fableworld.load("test", tokens=0), "tokens must be at least 1; got 0"),
        (lambda: fableworld.sentiment([], noise=0.6), "noise must be between 0 and 0.5; got 0.6"),
        (lambda: fableworld.full_world().reduced(["villain"]), r"free must name slots .*\['villain'\]"),
    ],
)
def test_bad_arguments_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


def test_a_world_refuses_a_slot_before_its_parent():
    coin = slots.independent("coin", {"heads": 1, "tails": 1})
    copy = slots.distinct("copy", ("heads", "tails"), ["coin"])
    with pytest.raises(ValueError, match=r"missing parents: \['coin'\]"):
        slots.World([copy, coin])


def test_a_slot_refuses_weights_that_are_not_integers():
    with pytest.raises(ValueError, match="'coin' must give one non-negative integer"):
        slots.independent("coin", {"heads": 0.5, "tails": 0.5}).row(())


def test_draws_follow_the_weights():
    # 4,000 draws of a 3:1 coin: four standard errors are 4 * sqrt(4000 * 3/4 * 1/4) = 110.
    row = slots.independent("coin", {"heads": 3, "tails": 1}).row(())
    rng = random.Random(5)
    heads = sum(row.draw(rng) == "heads" for _ in range(4000))
    assert abs(heads - 3000) <= 110


def test_sentiment_labels_have_the_bayes_accuracy(english_stories):
    data = fableworld.sentiment(english_stories, noise=0.2, seed=1)
    right = sum(a == b for a, b in zip(data.labels, data.true_labels, strict=True)) / len(english_stories)
    # Four standard errors of a proportion of 0.8 over 10,000 english_stories.
    assert abs(right - data.bayes_accuracy) <= 4 * (0.8 * 0.2 / 10_000) ** 0.5
    assert data.bayes_accuracy == pytest.approx(0.8)


def test_the_true_sentiment_can_be_read_in_the_text(english_stories):
    data = fableworld.sentiment(english_stories[:2000], noise=0.0)
    sad = re.compile(r"\b(sad|sorry|gloomy|miserable)\b")
    assert data.labels == data.true_labels == tuple(int(not sad.search(text)) for text in data.texts)
    assert 0.2 < sum(data.labels) / 2000 < 0.8


def test_entities_are_every_name_animal_and_place(english_stories):
    animals = {
        kind for table in (world.HERO_KINDS, world.FRIEND_KINDS) for kinds in table.values() for kind in kinds
    }
    for tale in english_stories[:500]:
        found = fableworld.entities(tale)
        by_type = collections.defaultdict(list)
        for entity in found:
            assert tuple(entity.text.split()) == tale.tokens[entity.start : entity.stop]
            by_type[entity.type].append(entity.text)
        assert by_type["PERSON"] == [token for token in tale.tokens if token in world.NAMES]
        assert by_type["ANIMAL"] == [token for token in tale.tokens if token in animals]
        assert len(by_type["PLACE"]) == 2


def test_questions_are_answered_by_their_span(english_stories):
    for tale in english_stories[:300]:
        asked = {q.question: q for q in fableworld.questions(tale)}
        for question in asked.values():
            assert tuple(question.answer.split()) == tale.tokens[question.start : question.stop]
            assert question.question[0].isupper()
            assert question.question.endswith("?")
        hero, friend = tale.slots["hero"], tale.slots["friend"]
        assert asked[f"What kind of animal was {hero}?"].answer == tale.slots["hero_kind"]
        assert asked["What colour was the basket?"].answer == tale.slots["colour"]
        together = next(q.answer for text, q in asked.items() if "together" in text)
        held = int(tale.slots["hero_count"]) + int(tale.slots["friend_count"])
        assert together == NUMBER_WORDS[held - 1]
        assert next(q.answer for text, q in asked.items() if text.startswith("Whom")) == friend


def test_a_summary_is_one_sentence_with_the_sum(english_stories):
    for tale in english_stories[:100]:
        told = fableworld.summary(tale)
        held = int(tale.slots["hero_count"]) + int(tale.slots["friend_count"])
        assert told.count(".") == 1
        assert told.startswith(
            f"{tale.slots['hero']} the {tale.slots['hero_kind']} met {tale.slots['friend']} the"
        )
        assert f"together they had {NUMBER_WORDS[held - 1]} " in told


def test_ids_round_trip_and_end_with_the_end_token(language, stories, binding_stories):
    tokenizer = fableworld.FableTokenizer(language)
    for tale in stories[:300] + binding_stories[:100]:
        ids = tokenizer.encode(tale.text)
        assert ids == tokenizer.ids_of(tale.tokens)
        assert ids[-1] == tokenizer.special_tokens[fableworld.END]
        assert tokenizer.decode(ids) == tale.text


def test_the_tokenizer_spells_questions_and_summaries(language, stories):
    tokenizer = fableworld.FableTokenizer(language)
    for tale in stories[:200]:
        for text in [fableworld.summary(tale), *(q.question for q in fableworld.questions(tale))]:
            assert tokenizer.decode(tokenizer.encode(text, end=False)) == text


def test_every_token_of_the_vocabulary_is_different_and_used(language, stories, binding_stories):
    tokenizer = fableworld.FableTokenizer(language)
    used = {token for tale in stories + binding_stories for token in tale.tokens}
    used |= {
        token
        for tale in stories[:50]
        for text in [fableworld.summary(tale), *(q.question for q in fableworld.questions(tale))]
        for token in fableworld.tokenize(text, language)
    }
    assert len(set(tokenizer.tokens)) == tokenizer.vocab_size
    assert set(tokenizer.tokens) == used


def test_a_saved_tokenizer_loads_equal(language, tmp_path):
    tokenizer = fableworld.FableTokenizer(language)
    tokenizer.save(tmp_path / "fable.json")
    loaded = fableworld.FableTokenizer.load(tmp_path / "fable.json")
    assert loaded.language == language
    assert loaded.tokens == tokenizer.tokens
    assert isinstance(loaded, Tokenizer)


def test_a_word_of_no_fable_is_named():
    with pytest.raises(ValueError, match="it has no 'xylophone'"):
        fableworld.FableTokenizer().encode("Mira met a xylophone.")


def test_importing_fableworld_does_not_import_tensorflow():
    code = "import sys, lmcourse.datasets.fableworld; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
