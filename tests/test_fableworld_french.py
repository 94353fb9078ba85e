"""What only French does. What it shares with English is tested with it, language by language."""

import itertools
import re

import pytest

from lmcourse.datasets import fableworld
from lmcourse.datasets.fableworld import french, world

MASCULINE_FOODS = {"biscuit", "biscuits"}
NUMBERS = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix"]
# Written here by ear, apart from the tables under test: every animal's noun.
FEMININE = {
    "souris",
    "ourse",
    "agnelle",
    "taupe",
    "ânesse",
    "renarde",
    "chatte",
    "loutre",
    "mouette",
    "cigogne",
    "cane",
    "pie",
    "corneille",
    "grive",
    "oie",
}
MASCULINE = {
    "ours",
    "agneau",
    "âne",
    "blaireau",
    "hérisson",
    "renard",
    "chat",
    "écureuil",
    "lièvre",
    "rouge-gorge",
    "héron",
    "roitelet",
    "canard",
    "hibou",
    "cygne",
}
ELIDING = {"ours", "ourse", "agneau", "agnelle", "âne", "ânesse", "écureuil", "oie", "orange"}


@pytest.fixture(scope="module")
def stories():
    return fableworld.generate(2000, seed=0, language="fr")


@pytest.fixture(scope="module")
def binding_stories():
    return fableworld.generate(300, seed=0, language="fr", binding=True)


def test_every_animal_has_a_known_gender():
    nouns = {noun for nouns in french.ANIMALS.values() for noun in nouns.values()}
    assert nouns == FEMININE | MASCULINE
    assert not FEMININE & MASCULINE


def test_articles_agree_with_the_animal_and_elide_before_a_vowel(stories):
    for tale in stories:
        for article, noun in itertools.pairwise(tale.tokens):
            if noun in FEMININE | MASCULINE:
                definite = "l’" if noun in ELIDING else ("la" if noun in FEMININE else "le")
                assert article in (definite, "une" if noun in FEMININE else "un"), (article, noun)


def test_the_sex_of_the_name_chooses_the_noun_where_there_are_two(stories):
    for tale in stories:
        for who in ("hero", "friend"):
            nouns = french.ANIMALS[tale.slots[f"{who}_kind"]]
            noun = nouns.get(world.GENDERS[tale.slots[who]], next(iter(nouns.values())))
            assert tale.tokens.count(noun) == (2 if tale.slots["dialogue"] == "spoken" else 1)


def test_adjectives_beside_a_noun_agree_with_the_noun(stories):
    feminine = {forms[1] for table in (french.TEMPERS, french.MOODS) for forms in table.values()}
    masculine = {forms[0] for table in (french.TEMPERS, french.MOODS) for forms in table.values()}
    for tale in stories:
        for noun, adjective in itertools.pairwise(tale.tokens):
            if noun in FEMININE | MASCULINE and adjective not in (".", ","):
                assert adjective in (feminine if noun in FEMININE else masculine), (noun, adjective)


def test_what_is_said_of_a_name_agrees_with_the_name(stories):
    for tale in stories:
        hero = "elle" if world.GENDERS[tale.slots["hero"]] == "feminine" else "il"
        assert re.findall(r"\b(?:il|elle)\b", tale.sentences[1].lower()) == [hero]
        feeling = french.FEELINGS[tale.slots["feeling"]][world.GENDERS[tale.slots["friend"]] == "feminine"]
        assert feeling in tale.tokens


def test_tout_agrees_only_with_a_feminine_that_begins_with_a_consonant(stories):
    # Grevisse & Goosse, Le bon usage, on « tout » as an adverb: toute contente, but tout heureuse (a mute h).
    seen = set()
    for tale in stories:
        at = next(
            i
            for i, label in enumerate(tale.labels)
            if tale.tokens[i] in ("tout", "toute") and label == "agreement"
        )
        seen.add((tale.tokens[at], tale.tokens[at + 1]))
    assert {("toute", "contente"), ("tout", "heureuse"), ("tout", "abattue"), ("tout", "content")} <= seen
    assert (
        not {("toute", "heureuse"), ("toute", "abattue"), ("tout", "contente"), ("toute", "content")} & seen
    )


def test_nouns_agree_with_their_numbers_and_numbers_with_their_nouns(stories):
    plural = {forms[1] for forms in french.FOODS.values()}
    singular = {forms[0] for forms in french.FOODS.values()}
    for tale in stories:
        for number, noun in itertools.pairwise(tale.tokens):
            if noun in singular | plural and number in ("un", "une"):
                assert noun in singular
                assert number == ("un" if noun in MASCULINE_FOODS else "une")
            elif noun in singular | plural and number in NUMBERS:
                assert noun in plural


def test_no_word_keeps_a_vowel_that_it_loses(stories, binding_stories):
    # The usual rule: le, la, de, que, ne, se, je, me, te before a vowel or a mute h; h is aspirated in these three.
    for tale in stories + binding_stories:
        for word, following in itertools.pairwise(tale.tokens):
            if word in ("le", "la", "de", "que", "ne", "se", "je", "me", "te"):
                vowel = following[0].lower() in "aàâeéèêiîoôuh"
                assert not vowel or following in ("hérisson", "héron", "hibou"), (word, following)
            if word in ("l’", "qu’", "d’", "n’"):
                assert following[0].lower() in "aàâeéèêiîoôuh", (word, following)
                assert following not in ("hérisson", "héron", "hibou")


def test_articles_contract(stories, binding_stories):
    for tale in stories + binding_stories:
        pairs = set(itertools.pairwise(tale.tokens))
        assert not pairs & {("à", "le"), ("à", "les"), ("de", "le"), ("de", "les")}
    everything = {token for tale in stories for token in tale.tokens}
    assert {"du", "des", "au", "aux"} <= everything


def test_sums_add_numbers_told_in_two_earlier_sentences(stories):
    for tale in stories:
        first, second = (int(tale.slots[name]) for name in ("hero_count", "friend_count"))
        assert tale.tokens[tale.labels.index("sum")] == NUMBERS[first + second - 1]
        for sentence, count in ((1, first), (2, second)):
            start, stop = tale.sentence_stops[sentence - 1], tale.sentence_stops[sentence]
            told = {forms[i] for forms in french.FOODS.values() for i in (0, 1)}
            (number,) = [a for a, b in itertools.pairwise(tale.tokens[start:stop]) if b in told]
            assert number in (NUMBERS[count - 1], "une" if count == 1 else None)


def test_binding_names_the_guest_who_wore_the_colour(binding_stories):
    for tale in binding_stories:
        wearer = {colour: name for name, colour in re.findall(r"(\w+) en (\w+)", tale.sentences[3])}
        recalled = re.findall(r"(?i)\bl(?:e |’)(\w+)(?: allait bien)? à (\w+)", tale.sentences[-2])
        assert len(wearer) == 3
        assert len(recalled) == 2
        assert all(wearer[colour] == name for colour, name in recalled)


def test_text_is_spaced_as_the_imprimerie_nationale_prescribes(stories, binding_stories):
    # Lexique des règles typographiques: a full no-break space inside guillemets and before a colon, no space before
    # a comma or a full stop, none after an apostrophe.
    for tale in stories + binding_stories:
        assert re.fullmatch(r"[A-ZÀÉ«].*\.", tale.text)
        assert not re.search(
            r"«[^\u00a0]|[^\u00a0][»:]|\s[.,]|’\s|\s{2}|[.] [a-zà-ÿ]|«\u00a0[a-zà-ÿ]|'", tale.text
        )
    question = fableworld.questions(stories[0])[0].question
    assert question.endswith("\u202f?")  # a narrow one before a question mark


def test_typed_text_with_plain_spaces_and_apostrophes_is_the_same():
    book = fableworld.tokenize("«\u00a0L’hiver est là\u00a0», dit l’oie.", "fr")
    assert fableworld.tokenize("« L'hiver est là », dit l'oie.", "fr") == book
    assert book == ("«", "l’", "hiver", "est", "là", "»", ",", "dit", "l’", "oie", ".", "<end>")


def test_the_true_sentiment_can_be_read_in_the_text(stories):
    data = fableworld.sentiment(stories, noise=0.0)
    sad = re.compile(r"\b(triste|désolée?|morose|abattue?)\b")
    assert data.labels == tuple(int(not sad.search(text)) for text in data.texts)
    assert 0.2 < sum(data.labels) / len(data.labels) < 0.8


def test_entities_are_every_name_animal_and_place(stories):
    for tale in stories[:300]:
        by_type = {
            kind: [e.text for e in fableworld.entities(tale) if e.type == kind]
            for kind in ("PERSON", "ANIMAL", "PLACE")
        }
        assert by_type["PERSON"] == [token for token in tale.tokens if token in world.NAMES]
        assert by_type["ANIMAL"] == [token for token in tale.tokens if token in FEMININE | MASCULINE]
        assert len(by_type["PLACE"]) == 2


def test_questions_are_answered_by_their_span(stories):
    for tale in stories[:200]:
        for q in fableworld.questions(tale):
            assert (
                fableworld.tokenize(q.answer[0].upper() + q.answer[1:], "fr", end=False)
                == tale.tokens[q.start : q.stop]
            )
            assert q.answer in tale.text or q.answer[0].upper() + q.answer[1:] in tale.text
            assert q.question[0].isupper()
        answers = {q.question.replace("\u202f", " "): q.answer for q in fableworld.questions(tale)}
        assert answers["De quelle couleur était le panier ?"] == french.COLOURS[tale.slots["colour"]]
        assert (
            answers[f"Où se trouvait {tale.slots['friend']} ?"] == french.PHRASES["spot"][tale.slots["spot"]]
        )


def test_a_summary_is_one_sentence_with_the_sum(stories):
    for tale in stories[:100]:
        told = fableworld.summary(tale)
        held = int(tale.slots["hero_count"]) + int(tale.slots["friend_count"])
        assert told.startswith(f"{tale.slots['hero']} l")
        assert told.endswith(f" réunirent {NUMBERS[held - 1]} {french.FOODS[tale.slots['food']][1]}.")
