"""Fableworld in English: words, forms, sentences, and how they are spelled."""

import re
from collections.abc import Iterable, Sequence

from lmcourse.datasets.fableworld import world
from lmcourse.datasets.fableworld.grammar import END, Language, Sentence
from lmcourse.datasets.fableworld.slots import Slot, only_if, ways

# Ids that are not the English word itself.
PHRASES = {
    "home": {
        "hill": "on a grassy hill",
        "wood": "in the deep wood",
        "river": "by the river",
        "orchard": "in the orchard",
        "village": "near the village",
        "barn": "behind the barn",
        "mill": "by the old mill",
        "lake": "beside the lake",
        "oak": "under the oak",
        "sea": "near the sea",
    },
    "errand": {
        "wolf": "to face the wolf",
        "marsh": "to cross the marsh",
        "acorn": "to plant an acorn",
        "ferry": "to meet the ferry",
        "aunt": "to nurse an aunt",
        "miller": "to help the miller",
        "ring": "to return a ring",
        "debt": "to pay a debt",
        "firewood": "to gather firewood",
        "rainbow": "to follow a rainbow",
        "seaside": "to find the sea",
        "cousin": "to visit a cousin",
        "race": "to win a race",
        "queen": "to see the queen",
    },
    "spot": {
        "ford": "near the ford",
        "reeds": "among the reeds",
        "gate": "at the gate",
        "roadside": "by the roadside",
        "hedge": "under a hedge",
        "well": "beside the well",
        "crossroads": "at the crossroads",
        "bridge": "on the bridge",
    },
    "plea": {
        "dare": "I dare not go on",
        "dark": "the dark frightens me",
        "wait": "I can wait no longer",
        "road": "the road is so long",
        "wing": "my wing hurts",
        "thanks": "nobody ever thanks me",
        "lie": "I have told a lie",
        "took": "I stole a ring",
        "winter": "winter will find me hungry",
        "nothing": "I have nothing put by",
        "beyond": "I want to see everything",
        "moon": "I want the moon",
        "alone": "I am all alone",
        "unknown": "nobody knows me here",
        "finest": "I sing best of all",
        "right": "I am never wrong",
    },
    "answer": {
        "together": "then let us go together",
        "beside": "I will stay beside you",
        "rest": "then rest with me awhile",
        "slowly": "good things come slowly",
        "share": "what I have is yours",
        "late": "it is never too late",
        "tell": "the truth will help you",
        "aside": "we can put some aside",
        "look": "let us look and see",
        "wind": "let us ask the wind",
        "now": "now you have a friend",
        "learn": "we can both learn something",
    },
    "reason": {
        "plenty": "there was plenty left",
        "sky": "the sky had cleared",
        "feast": "the feast was splendid",
        "song": "the whole village sang",
        "supper": "the supper was good",
        "thief": "a thief took everything",
        "rain": "the rain ruined supper",
        "river-fall": "the basket fell apart",
        "crumb": "no crumb was left",
        "wind-took": "the wind took everything",
    },
    "moral": {
        "courage-1": "the brave are often afraid",
        "courage-2": "small hearts can be bold",
        "patience-1": "slow steps reach the summit",
        "patience-2": "patience ripens every fruit",
        "kindness-1": "no kind deed is wasted",
        "kindness-2": "a warm word costs nothing",
        "honesty-1": "the truth is worth telling",
        "honesty-2": "an honest word is gold",
        "thrift-1": "full barns fear no winter",
        "thrift-2": "little acorns grow tall",
        "curiosity-1": "a question opens every door",
        "curiosity-2": "the curious travel farthest",
        "friendship-1": "a burden shared is light",
        "friendship-2": "two are warmer than one",
        "humility-1": "the wise still listen",
        "humility-2": "pride comes before a fall",
    },
}
PLURALS = {"cherry": "cherries"}
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PRONOUNS = {"feminine": ("she", "her"), "masculine": ("he", "his")}
SILENT_H = ("honest",)

# "I" and the names keep their capital wherever they stand.
CAPITALISED = frozenset(("I", *world.NAMES))


def _number(count: str) -> str:
    return NUMBERS[int(count) - 1]


def _noun(noun: str, count: str) -> str:
    return noun if count == "1" else PLURALS.get(noun, noun + "s")


def _article(following: str) -> str:
    return "an" if following[0] in "aeiou" or following in SILENT_H else "a"


FORMS = {
    "word": str,
    "name": str,
    "animal": str,
    "number": _number,
    "count": _noun,
    "plural": lambda noun: _noun(noun, "2"),
    "total": lambda first, second: _number(str(int(first) + int(second))),
    "a": _article,
    "he": lambda name: PRONOUNS[world.GENDERS[name]][0],
    "his": lambda name: PRONOUNS[world.GENDERS[name]][1],
    "chosen": lambda which, *candidates: candidates[int(which) - 1],
    **{form: table.__getitem__ for form, table in PHRASES.items()},
}


def phrasing(binding: bool) -> Sequence[Slot]:
    """Return the slots that choose between ways of saying the same in English."""
    slots = [
        ways("opening", once=3, lived=2, ago=2),
        ways("naming", called=1, named=1),
        ways("setting", one=1, on=1),
        ways("meeting", met=2, sat=1, found=1),
        only_if(ways("friend_speech", said=1, sighed=2, whispered=1, cried=1), "dialogue", "spoken"),
        only_if(ways("hero_speech", said=1, answered=2, replied=2, laughed=1), "dialogue", "spoken"),
        ways("summing", put=1, opened=1, looked=1),
        ways("closing", soon=1, nightfall=1, end=1),
        ways("lesson", said=1, tell=1, learned=1, forgot=1),
    ]
    return slots + ([ways("arriving", came=1, joined=1)] if binding else [])


_HERO = (
    "{agreement:a(temper)} {topic:word(temper)} {topic:animal(hero_kind)} {word(naming)} {noise:name(hero)}"
)
_FRIEND = "{agreement:a(mood)} {topic:word(mood)} {topic:animal(friend_kind)}"
_WEATHER = "{topic:word(weather)} {noise:word(time)}"
_HERO_FOOD = "{noise:number(hero_count)} {topic:count(food, hero_count)}"
_FRIEND_FOOD = "{noise:number(friend_count)} {copy-attribute:count(food, friend_count)}"
_BASKET = "{agreement:a(colour)} {noise:word(colour)} basket"
_PEARS = "{copy-attribute:plural(food)}"
_SAME_BASKET = "the {copy-attribute:word(colour)} basket"
_SUM = "{sum:total(hero_count, friend_count)}"
_MIRA, _OTTO = "{copy-name:name(hero)}", "{copy-name:name(friend)}"
_FELT = "{topic:word(feeling)}"
_REASON = "{topic:reason(reason)} ."
_MORAL = "{topic:moral(moral)}"
_SHE = "{agreement:he(hero)}"


def _guest(number: int) -> str:
    return f"{{noise:name(guest_{number})}} in {{noise:word(coat_{number})}}"


_STORY = {
    "opening": Sentence(
        "opening",
        {
            "once": f"once upon a time {_HERO} lived {{topic:home(home)}} .",
            "lived": f"{{topic:home(home)}} there lived {_HERO} .",
            "ago": f"long ago , {_HERO} lived {{topic:home(home)}} .",
        },
    ),
    "setting": Sentence(
        "setting",
        {
            "one": f"one {_WEATHER} {_SHE} set out {{topic:errand(errand)}} with {_HERO_FOOD} in {_BASKET} .",
            "on": f"on {{agreement:a(weather)}} {_WEATHER} {_SHE} put {_HERO_FOOD} in {_BASKET} "
            "and went {topic:errand(errand)} .",
        },
    ),
    "meeting": Sentence(
        "meeting",
        {
            "met": f"{{topic:spot(spot)}} {_SHE} met {_FRIEND} named {{noise:name(friend)}} , "
            f"who had {_FRIEND_FOOD} .",
            "sat": f"{{topic:spot(spot)}} sat {_FRIEND} called {{noise:name(friend)}} "
            f"with {_FRIEND_FOOD} of {{agreement:his(friend)}} own .",
            "found": f"{{topic:spot(spot)}} {_SHE} found {_FRIEND} named {{noise:name(friend)}} "
            f"with {_FRIEND_FOOD} to spare .",
        },
    ),
    "plea": Sentence(
        "dialogue",
        {
            "spoken": f"“ {{topic:plea(plea)}} , {_MIRA} , ” {{word(friend_speech)}} "
            "the {copy-attribute:animal(friend_kind)} .",
            "silent": "",
        },
    ),
    "answer": Sentence(
        "dialogue",
        {
            "spoken": f"“ {{topic:answer(answer)}} , {_OTTO} , ” {{word(hero_speech)}} "
            "the {copy-attribute:animal(hero_kind)} .",
            "silent": "",
        },
    ),
    "summing": Sentence(
        "summing",
        {
            "put": f"then {_MIRA} put the {_PEARS} into {_SAME_BASKET} and counted {_SUM} .",
            "opened": f"{_MIRA} opened {_SAME_BASKET} , and together they had {_SUM} {_PEARS} .",
            "looked": f"{_MIRA} looked in {_SAME_BASKET} and counted {_SUM} {_PEARS} in all .",
        },
    ),
    "closing": Sentence(
        "closing",
        {
            "soon": f"soon {_OTTO} felt {_FELT} , for {_REASON}",
            "nightfall": f"by nightfall {_OTTO} was {_FELT} , because {_REASON}",
            "end": f"in the end {_OTTO} was {_FELT} , for {_REASON}",
        },
    ),
    "lesson": Sentence(
        "lesson",
        {
            "said": f"“ {_MORAL} , ” said {_MIRA} to {_OTTO} .",
            "tell": f"“ {_MORAL} , ” {_MIRA} would often tell {_OTTO} .",
            "learned": f"so {_MIRA} learned that {_MORAL} , and {_OTTO} agreed .",
            "forgot": f"{_MIRA} never forgot that {_MORAL} , and neither did {_OTTO} .",
        },
    ),
}
_ARRIVAL = Sentence(
    "arriving",
    {
        "came": f"{_guest(1)} , {_guest(2)} and {_guest(3)} came along too .",
        "joined": f"they were joined by {_guest(1)} , {_guest(2)} and {_guest(3)} .",
    },
)
_SUITED = Sentence(
    "dialogue",
    {
        "silent": "{copy-attribute:chosen(first, coat_1, coat_2, coat_3)} suited "
        "{binding:chosen(first, guest_1, guest_2, guest_3)} , and "
        "{copy-attribute:chosen(second, coat_1, coat_2, coat_3)} suited "
        "{binding:chosen(second, guest_1, guest_2, guest_3)} .",
    },
)


def sentences(binding: bool) -> Sequence[Sentence]:
    """Return the sentences of a story, in order."""
    told = dict(_STORY)
    if not binding:
        return tuple(told.values())
    lesson = told.pop("lesson")
    order = [told["opening"], told["setting"], told["meeting"], _ARRIVAL]
    return (*order, told["summing"], told["closing"], _SUITED, lesson)


_TOKEN = re.compile(r"\w+|[^\w\s]")
_STOPS = ".!?"


def tokenize(text: str, end: bool = True) -> tuple[str, ...]:
    """Return the canonical tokens of English text.

    The first word of a sentence is written small, unless it always has a capital. Each line is a story of its
    own: the end token stands between lines.

    Args:
        text: one or more stories.
        end: whether the last story is complete, so that the end token closes it.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    tokens: list[str] = []
    for number, line in enumerate(lines):
        tokens.extend(_line_tokens(line))
        if end or number + 1 < len(lines):
            tokens.append(END)
    return tuple(tokens)


def _line_tokens(line: str) -> Iterable[str]:
    starts = True
    for token in _TOKEN.findall(line):
        yield token if not starts or token in CAPITALISED else token[0].lower() + token[1:]
        starts = _starts_after(token, starts)


def detokenize(tokens: Iterable[str]) -> str:
    """Return English text as a book prints it; the end token ends a line, the last one nothing.

    Example:
        >>> detokenize(("“", "the", "sky", "is", "high", ",", "Mira", ",", "”", "said", "the", "owl", ".", END))
        '“The sky is high, Mira,” said the owl.'
    """
    lines = [""]
    starts, glued = True, True
    for token in tokens:
        if token == END:
            lines.append("")
            starts, glued = True, True
            continue
        word = token[0].upper() + token[1:] if starts else token
        glued = glued or token in (*_STOPS, ",", "”")
        lines[-1] += word if glued else f" {word}"
        starts, glued = _starts_after(token, starts), token == "“"
    return "\n".join(lines).removesuffix("\n")


def _starts_after(token: str, starts: bool) -> bool:
    """Return whether the next token begins a sentence; a closing quotation mark leaves that as it was."""
    return starts if token == "”" else token in (*_STOPS, "“")


ENGLISH = Language(
    code="en",
    forms=FORMS,
    phrasing=phrasing,
    sentences=sentences,
    tokenize=tokenize,
    detokenize=detokenize,
    questions=(
        ("who lived {home(home)} ?", "{name(hero)}"),
        ("where did {name(hero)} live ?", "{home(home)}"),
        ("what kind of animal was {name(hero)} ?", "{animal(hero_kind)}"),
        ("what colour was the basket ?", "{word(colour)}"),
        ("whom did {name(hero)} meet {spot(spot)} ?", "{name(friend)}"),
        ("where did {name(hero)} meet {name(friend)} ?", "{spot(spot)}"),
        ("how many {plural(food)} did {name(friend)} have ?", "{number(friend_count)}"),
        ("how many {plural(food)} did they have together ?", "{total(hero_count, friend_count)}"),
        ("how did {name(friend)} feel in the end ?", "{word(feeling)}"),
        ("what did {name(hero)} learn ?", "{moral(moral)}"),
    ),
    summary="{name(hero)} the {animal(hero_kind)} met {name(friend)} the {animal(friend_kind)} , and together "
    "they had {total(hero_count, friend_count)} {plural(food)} .",
    entities={
        "name": "PERSON",
        "animal": "ANIMAL",
        "home": "PLACE",
        "spot": "PLACE",
    },
)
