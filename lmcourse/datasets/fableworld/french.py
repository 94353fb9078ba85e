"""Fableworld in French: words, forms, sentences, and how they are spelled.

Which gender decides? What stands beside a noun agrees with the noun, even where the noun does not say whether it
names a he or a she (« Bruno, une souris timide »); what is said of somebody called by name agrees with the name
(« Bruno était content », « il partit »). Some animals have a noun for each sex, and the name chooses it (un ours,
une ourse). That is why a name stands before the animal here: a reader who has read « Clara , » knows that « un »
begins no bear.
"""

import re
from collections.abc import Iterable, Sequence

from lmcourse.datasets.fableworld import world
from lmcourse.datasets.fableworld.grammar import END, Language, Sentence
from lmcourse.datasets.fableworld.slots import Slot, only_if, ways

# The masculine and the feminine; one word where the noun has one gender for both sexes.
ANIMALS = {
    "mouse": {"feminine": "souris"},
    "bear": {"masculine": "ours", "feminine": "ourse"},
    "lamb": {"masculine": "agneau", "feminine": "agnelle"},
    "mole": {"feminine": "taupe"},
    "donkey": {"masculine": "âne", "feminine": "ânesse"},
    "badger": {"masculine": "blaireau"},
    "hedgehog": {"masculine": "hérisson"},
    "fox": {"masculine": "renard", "feminine": "renarde"},
    "cat": {"masculine": "chat", "feminine": "chatte"},
    "squirrel": {"masculine": "écureuil"},
    "otter": {"feminine": "loutre"},
    "hare": {"masculine": "lièvre"},
    "robin": {"masculine": "rouge-gorge"},
    "gull": {"feminine": "mouette"},
    "heron": {"masculine": "héron"},
    "stork": {"feminine": "cigogne"},
    "wren": {"masculine": "roitelet"},
    "duck": {"masculine": "canard", "feminine": "cane"},
    "magpie": {"feminine": "pie"},
    "crow": {"feminine": "corneille"},
    "thrush": {"feminine": "grive"},
    "owl": {"masculine": "hibou"},
    "goose": {"feminine": "oie"},
    "swan": {"masculine": "cygne"},
}
# Singular, plural and gender.
FOODS = {
    "fig": ("figue", "figues", "feminine"),
    "plum": ("prune", "prunes", "feminine"),
    "pear": ("poire", "poires", "feminine"),
    "cherry": ("cerise", "cerises", "feminine"),
    "bun": ("brioche", "brioches", "feminine"),
    "apple": ("pomme", "pommes", "feminine"),
    "walnut": ("noix", "noix", "feminine"),
    "carrot": ("carotte", "carottes", "feminine"),
    "biscuit": ("biscuit", "biscuits", "masculine"),
}
TIMES = {
    "morning": ("matin", "masculine"),
    "afternoon": ("après-midi", "masculine"),
    "evening": ("soirée", "feminine"),
}
# Adjectives, the masculine and the feminine.
TEMPERS = {
    "bold": ("hardi", "hardie"),
    "timid": ("craintif", "craintive"),
    "eager": ("empressé", "empressée"),
    "patient": ("patient", "patiente"),
    "hasty": ("impatient", "impatiente"),
    "idle": ("paresseux", "paresseuse"),
    "gentle": ("doux", "douce"),
    "merry": ("joyeux", "joyeuse"),
    "honest": ("honnête", "honnête"),
    "proud": ("orgueilleux", "orgueilleuse"),
    "careful": ("prudent", "prudente"),
    "curious": ("curieux", "curieuse"),
}
MOODS = {
    "anxious": ("inquiet", "inquiète"),
    "restless": ("agité", "agitée"),
    "weary": ("fatigué", "fatiguée"),
    "hungry": ("affamé", "affamée"),
    "unhappy": ("malheureux", "malheureuse"),
    "grumpy": ("bougon", "bougonne"),
    "elderly": ("âgé", "âgée"),
    "sleepy": ("somnolent", "somnolente"),
    "shy": ("timide", "timide"),
    "lonely": ("solitaire", "solitaire"),
}
WEATHERS = {
    "stormy": ("orageux", "orageuse"),
    "icy": ("glacial", "glaciale"),
    "rainy": ("pluvieux", "pluvieuse"),
    "snowy": ("neigeux", "neigeuse"),
    "frosty": ("froid", "froide"),
    "misty": ("brumeux", "brumeuse"),
    "sunny": ("ensoleillé", "ensoleillée"),
    "windy": ("venteux", "venteuse"),
}
FEELINGS = {
    "happy": ("heureux", "heureuse"),
    "glad": ("content", "contente"),
    "grateful": ("reconnaissant", "reconnaissante"),
    "hopeful": ("confiant", "confiante"),
    "sad": ("triste", "triste"),
    "sorry": ("désolé", "désolée"),
    "gloomy": ("morose", "morose"),
    "miserable": ("abattu", "abattue"),
}
PHRASES = {
    "home": {
        "hill": "sur une verte colline",
        "wood": "au fond du bois",
        "river": "près de la rivière",
        "orchard": "dans le verger",
        "village": "aux abords du village",
        "barn": "derrière la grange",
        "mill": "près du vieux moulin",
        "lake": "au bord du lac",
        "oak": "sous le chêne",
        "sea": "près de la mer",
    },
    "errand": {
        "wolf": "affronter le loup",
        "marsh": "traverser le marais",
        "acorn": "planter un gland",
        "ferry": "attendre le bac",
        "aunt": "soigner une tante",
        "miller": "aider le meunier",
        "ring": "rendre une bague",
        "debt": "payer une dette",
        "firewood": "ramasser des fagots",
        "rainbow": "suivre un arc-en-ciel",
        "seaside": "chercher la mer",
        "cousin": "embrasser un cousin",
        "race": "gagner une course",
        "queen": "voir la reine",
    },
    "spot": {
        "ford": "au gué",
        "reeds": "parmi les roseaux",
        "gate": "devant le portail",
        "roadside": "sur le chemin",
        "hedge": "sous une haie",
        "well": "près du puits",
        "crossroads": "au carrefour",
        "bridge": "sur le pont",
    },
    # Said by somebody of either gender, so that no word of it depends on who speaks.
    "plea": {
        "dare": "je n’ ose pas continuer",
        "dark": "le noir me fait peur",
        "wait": "je ne peux plus attendre",
        "road": "la route est si longue",
        "wing": "mon aile me fait mal",
        "thanks": "personne ne me dit merci",
        "lie": "j’ ai dit un mensonge",
        "took": "j’ ai volé une bague",
        "winter": "j’ aurai faim cet hiver",
        "nothing": "je n’ ai rien gardé",
        "beyond": "je voudrais tout voir",
        "moon": "je veux la lune",
        "alone": "je n’ ai aucun ami",
        "unknown": "personne ne me connaît ici",
        "finest": "nul ne chante comme moi",
        "right": "je n’ ai jamais tort",
    },
    "answer": {
        "together": "je ferai route avec toi",
        "beside": "je resterai près de toi",
        "rest": "alors repose-toi avec moi",
        "slowly": "tout vient à son heure",
        "share": "je partagerai avec toi",
        "late": "il est encore temps",
        "tell": "la vérité t’ aidera",
        "aside": "mettons-en un peu de côté",
        "look": "allons voir cela ensemble",
        "wind": "demandons son avis au vent",
        "now": "tu peux compter sur moi",
        "learn": "nous avons tant à apprendre",
    },
    "reason": {
        "plenty": "il en restait beaucoup",
        "sky": "le ciel s’ était dégagé",
        "feast": "le festin était splendide",
        "song": "tout le village chantait",
        "supper": "on avait bien soupé",
        "thief": "un voleur avait tout pris",
        "rain": "la pluie avait tout gâté",
        "river-fall": "le panier s’ était rompu",
        "crumb": "il ne restait aucune miette",
        "wind-took": "le vent avait tout emporté",
    },
    "moral": {
        "courage-1": "les braves ont souvent peur",
        "courage-2": "un petit cœur peut oser",
        "patience-1": "à petits pas on arrive",
        "patience-2": "la patience mûrit les fruits",
        "kindness-1": "aucun bienfait n’ est perdu",
        "kindness-2": "mot doux ne coûte rien",
        "honesty-1": "il faut dire la vérité",
        "honesty-2": "parole honnête est d’ or",
        "thrift-1": "grange pleine brave l’ hiver",
        "thrift-2": "petit gland deviendra grand",
        "curiosity-1": "une question ouvre mille portes",
        "curiosity-2": "les curieux vont plus loin",
        "friendship-1": "un fardeau partagé est léger",
        "friendship-2": "à deux le froid recule",
        "humility-1": "le sage écoute encore",
        "humility-2": "l’ orgueil précède la chute",
    },
}
COLOURS = {
    "red": "rouge",
    "blue": "bleu",
    "green": "vert",
    "yellow": "jaune",
    "purple": "violet",
    "orange": "orange",
    "white": "blanc",
    "brown": "brun",
}
SPEECH = {
    "said": "dit",
    "sighed": "soupira",
    "whispered": "murmura",
    "moaned": "gémit",
    "answered": "répondit",
    "replied": "répliqua",
    "resumed": "reprit",
}
NUMBERS = ("un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix")
PRONOUNS = {"feminine": "elle", "masculine": "il"}
ARTICLES = {"feminine": ("une", "la"), "masculine": ("un", "le")}

# Before these « le », « la » and « que » keep their vowel, as before a consonant.
ASPIRATED_H = frozenset(("hérisson", "héron", "hibou"))
VOWELS = "aàâeéèêiîoôuhœ"

# The names keep their capital wherever they stand.
CAPITALISED = frozenset(world.NAMES)


def _gender(kind: str, name: str) -> str:
    """Return the gender of the noun for an animal of that name."""
    nouns = ANIMALS[kind]
    return world.GENDERS[name] if len(nouns) == 2 else next(iter(nouns))


def _agreeing(forms: tuple[str, str], gender: str) -> str:
    masculine, feminine = forms
    return feminine if gender == "feminine" else masculine


def _elides(following: str) -> bool:
    return following[0].lower() in VOWELS and following not in ASPIRATED_H


def _animal(kind: str, name: str) -> str:
    return ANIMALS[kind][_gender(kind, name)]


def _the(noun: str, gender: str) -> str:
    return "l’" if _elides(noun) else ARTICLES[gender][1]


def _that(clause: str) -> str:
    return "qu’" if _elides(clause) else "que"


def _quite(feeling: str, name: str) -> str:
    """Return « tout », which agrees only with a feminine that begins with a consonant (« tout heureuse »)."""
    gender = world.GENDERS[name]
    return "toute" if gender == "feminine" and not _elides(FEELINGS[feeling][1]) else "tout"


def _number(count: str, food: str) -> str:
    return ARTICLES[FOODS[food][2]][0] if count == "1" else NUMBERS[int(count) - 1]


def _chosen(which: str, *candidates: str) -> str:
    return candidates[int(which) - 1]


FORMS = {
    "name": str,
    "animal": _animal,
    "an_animal": lambda kind, name: ARTICLES[_gender(kind, name)][0],
    "the_animal": lambda kind, name: _the(_animal(kind, name), _gender(kind, name)),
    "temper": lambda temper, kind, name: _agreeing(TEMPERS[temper], _gender(kind, name)),
    "mood": lambda mood, kind, name: _agreeing(MOODS[mood], _gender(kind, name)),
    "quite": _quite,
    "feeling": lambda feeling, name: _agreeing(FEELINGS[feeling], world.GENDERS[name]),
    "he": lambda name: PRONOUNS[world.GENDERS[name]],
    "time": lambda time: TIMES[time][0],
    "a_time": lambda time: ARTICLES[TIMES[time][1]][0],
    "weather": lambda weather, time: _agreeing(WEATHERS[weather], TIMES[time][1]),
    "number": _number,
    "count": lambda food, count: FOODS[food][0 if count == "1" else 1],
    "plural": lambda food: FOODS[food][1],
    "total": lambda first, second: NUMBERS[int(first) + int(second) - 1],
    "colour": COLOURS.__getitem__,
    "said": SPEECH.__getitem__,
    "chosen": _chosen,
    "chosen_colour": lambda which, *coats: COLOURS[_chosen(which, *coats)],
    "the_colour": lambda which, *coats: _the(COLOURS[_chosen(which, *coats)], "masculine"),
    "that_reason": lambda reason: _that(PHRASES["reason"][reason]),
    "that_moral": lambda moral: _that(PHRASES["moral"][moral]),
    "living": {"lived": "vivait", "dwelt": "habitait"}.__getitem__,
    **{form: table.__getitem__ for form, table in PHRASES.items()},
}


def phrasing(binding: bool) -> Sequence[Slot]:
    """Return the slots that choose between ways of saying the same in French."""
    slots = [
        ways("opening", once=3, place=2, ago=2),
        ways("living", lived=2, dwelt=1),
        ways("setting", by=2, left=1),
        ways("meeting", waited=2, dreamt=1, pecked=1),
        only_if(ways("friend_speech", said=1, sighed=2, whispered=1, moaned=1), "dialogue", "spoken"),
        only_if(ways("hero_speech", said=1, answered=2, replied=1, resumed=1), "dialogue", "spoken"),
        ways("summing", put=1, opened=1, looked=1),
        ways("closing", soon=1, nightfall=1, end=1),
        ways("lesson", said=1, tell=1, learned=1, forgot=1),
    ]
    return slots + ([ways("arriving", came=1, joined=1)] if binding else [])


_HERO = (
    "{noise:name(hero)} , {agreement:an_animal(hero_kind, hero)} {topic:animal(hero_kind, hero)} "
    "{topic:temper(temper, hero_kind, hero)}"
)
_FRIEND = (
    "{noise:name(friend)} , {agreement:an_animal(friend_kind, friend)} {topic:animal(friend_kind, friend)} "
    "{topic:mood(mood, friend_kind, friend)}"
)
_LIVED = "{living(living)}"
_HOME, _SPOT, _ERRAND = "{topic:home(home)}", "{topic:spot(spot)}", "{topic:errand(errand)}"
_WEATHER = "{agreement:a_time(time)} {noise:time(time)} {topic:weather(weather, time)}"
_HERO_FOOD = "{noise:number(hero_count, food)} {topic:count(food, hero_count)}"
_FRIEND_FOOD = "{noise:number(friend_count, food)} {copy-attribute:count(food, friend_count)}"
_BASKET = "un panier {noise:colour(colour)}"
_PEARS = "{copy-attribute:plural(food)}"
_SAME_BASKET = "le panier {copy-attribute:colour(colour)}"
_SUM = "{sum:total(hero_count, friend_count)}"
_MIRA, _OTTO = "{copy-name:name(hero)}", "{copy-name:name(friend)}"
_THE_HERO = "{agreement:the_animal(hero_kind, hero)} {copy-attribute:animal(hero_kind, hero)}"
_THE_FRIEND = "{agreement:the_animal(friend_kind, friend)} {copy-attribute:animal(friend_kind, friend)}"
_FELT = "{agreement:quite(feeling, friend)} {topic:feeling(feeling, friend)}"
_REASON, _THAT_REASON = "{topic:reason(reason)}", "{agreement:that_reason(reason)} {topic:reason(reason)}"
_MORAL, _THAT_MORAL = "{topic:moral(moral)}", "{agreement:that_moral(moral)} {topic:moral(moral)}"
_SHE = "{agreement:he(hero)}"


def _guest(number: int) -> str:
    return f"{{noise:name(guest_{number})}} en {{noise:colour(coat_{number})}}"


def _recalled(which: str) -> tuple[str, str]:
    """Return the colour that is recalled, with its article, and the guest who wore it."""
    coats, guests = f"{which}, coat_1, coat_2, coat_3", f"{which}, guest_1, guest_2, guest_3"
    colour = f"{{agreement:the_colour({coats})}} {{copy-attribute:chosen_colour({coats})}}"
    return colour, f"{{binding:chosen({guests})}}"


_STORY = {
    "opening": Sentence(
        "opening",
        {
            "once": f"il était une fois {_HERO} qui {_LIVED} {_HOME} .",
            "place": f"{_HOME} {_LIVED} autrefois {_HERO} .",
            "ago": f"jadis , {_HERO} , {_LIVED} {_HOME} .",
        },
    ),
    "setting": Sentence(
        "setting",
        {
            "by": f"par {_WEATHER} , {_SHE} partit {_ERRAND} avec {_HERO_FOOD} dans {_BASKET} .",
            "left": f"{_SHE} partit {_ERRAND} par {_WEATHER} avec {_HERO_FOOD} dans {_BASKET} .",
        },
    ),
    "meeting": Sentence(
        "meeting",
        {
            "waited": f"{_SPOT} attendait {_FRIEND} , avec {_FRIEND_FOOD} .",
            "dreamt": f"{_SPOT} rêvait {_FRIEND} qui avait {_FRIEND_FOOD} .",
            "pecked": f"{_SPOT} picorait {_FRIEND} qui portait {_FRIEND_FOOD} .",
        },
    ),
    "plea": Sentence(
        "dialogue",
        {
            "spoken": f"« {{topic:plea(plea)}} , {_MIRA} » , {{said(friend_speech)}} {_THE_FRIEND} .",
            "silent": "",
        },
    ),
    "answer": Sentence(
        "dialogue",
        {
            "spoken": f"« {{topic:answer(answer)}} , {_OTTO} » , {{said(hero_speech)}} {_THE_HERO} .",
            "silent": "",
        },
    ),
    "summing": Sentence(
        "summing",
        {
            "put": f"{_MIRA} mit les {_PEARS} dans {_SAME_BASKET} et en compta {_SUM} .",
            "opened": f"{_MIRA} ouvrit {_SAME_BASKET} : cela faisait {_SUM} {_PEARS} en tout .",
            "looked": f"{_MIRA} regarda dans {_SAME_BASKET} et compta {_SUM} {_PEARS} en tout .",
        },
    ),
    "closing": Sentence(
        "closing",
        {
            "soon": f"bientôt , {_OTTO} se sentit {_FELT} , car {_REASON} .",
            "nightfall": f"ce soir-là , {_OTTO} était {_FELT} parce {_THAT_REASON} .",
            "end": f"à la fin {_OTTO} était {_FELT} , car {_REASON} .",
        },
    ),
    "lesson": Sentence(
        "lesson",
        {
            "said": f"« {_MORAL} » , dit {_MIRA} à {_OTTO} .",
            "tell": f"« {_MORAL} » , disait volontiers {_MIRA} à {_OTTO} .",
            "learned": f"ainsi {_MIRA} apprit {_THAT_MORAL} , et {_OTTO} aussi .",
            "forgot": f"{_MIRA} n’ oublia jamais {_THAT_MORAL} , {_OTTO} non plus .",
        },
    ),
}
_ARRIVAL = Sentence(
    "arriving",
    {
        "came": f"{_guest(1)} , {_guest(2)} et {_guest(3)} vinrent aussi .",
        "joined": f"puis arrivèrent {_guest(1)} , {_guest(2)} et {_guest(3)} .",
    },
)
_RED, _WEARER = _recalled("first")
_BLUE, _OTHER_WEARER = _recalled("second")
_SUITED = Sentence("dialogue", {"silent": f"{_RED} allait bien à {_WEARER} , et {_BLUE} à {_OTHER_WEARER} ."})


def sentences(binding: bool) -> Sequence[Sentence]:
    """Return the sentences of a story, in order; they are those of every language, one for one."""
    told = dict(_STORY)
    if not binding:
        return tuple(told.values())
    lesson = told.pop("lesson")
    order = [told["opening"], told["setting"], told["meeting"], _ARRIVAL]
    return (*order, told["summing"], told["closing"], _SUITED, lesson)


# A hyphen joins (« arc-en-ciel »); an apostrophe ends the word that lost its vowel (« l’ »).
_TOKEN = re.compile(r"\w+(?:-\w+)*’?|[^\w\s]")
_STOPS = ".!?"

# Spaces at which no line breaks: a full one inside guillemets and before a colon, a narrow one before ; ! and ?.
NO_BREAK, NARROW = "\u00a0", "\u202f"
_SPACE_BEFORE = {".": "", ",": "", "»": NO_BREAK, ":": NO_BREAK, ";": NARROW, "!": NARROW, "?": NARROW}


def tokenize(text: str, end: bool = True) -> tuple[str, ...]:
    """Return the canonical tokens of French text.

    The first word of a sentence is written small, unless it is a name. Any kind of space and either apostrophe
    will do. Each line is a story of its own: the end token stands between lines.

    Args:
        text: one or more stories.
        end: whether the last story is complete, so that the end token closes it.

    Example:
        >>> tokenize("« L'hiver est là », dit l'oie.", end=False)
        ('«', 'l’', 'hiver', 'est', 'là', '»', ',', 'dit', 'l’', 'oie', '.')
    """
    lines = [line for line in text.replace("'", "’").splitlines() if line.strip()]
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
    """Return French text as a book prints it; the end token ends a line, the last one nothing.

    Example:
        >>> detokenize(("c’", "est", "l’", "hiver", ":", "il", "neige", ".", END)).split(NO_BREAK)
        ['C’est l’hiver', ': il neige.']
    """
    lines = [""]
    starts, space = True, ""
    for token in tokens:
        if token == END:
            lines.append("")
            starts, space = True, ""
            continue
        lines[-1] += _SPACE_BEFORE.get(token, space) if lines[-1] else ""
        lines[-1] += token[0].upper() + token[1:] if starts else token
        starts, space = _starts_after(token, starts), _space_after(token)
    return "\n".join(lines).removesuffix("\n")


def join(words: Iterable[str]) -> str:
    """Return the words of a mention or an answer as text.

    Example:
        >>> join(("l’", "orgueil", "précède", "la", "chute"))
        'l’orgueil précède la chute'
    """
    return " ".join(words).replace("’ ", "’")


def _space_after(token: str) -> str:
    if token == "«":
        return NO_BREAK
    return "" if token.endswith("’") else " "


def _starts_after(token: str, starts: bool) -> bool:
    """Return whether the next token begins a sentence; closing guillemets leave that as it was."""
    return starts if token == "»" else token in (*_STOPS, "«")


FRENCH = Language(
    code="fr",
    forms=FORMS,
    phrasing=phrasing,
    sentences=sentences,
    tokenize=tokenize,
    detokenize=detokenize,
    questions=(
        ("qui vivait {home(home)} ?", "{name(hero)}"),
        ("où vivait {name(hero)} ?", "{home(home)}"),
        ("quel animal était {name(hero)} ?", "{animal(hero_kind, hero)}"),
        ("de quelle couleur était le panier ?", "{colour(colour)}"),
        ("qui se trouvait {spot(spot)} ?", "{name(friend)}"),
        ("où se trouvait {name(friend)} ?", "{spot(spot)}"),
        ("combien de {plural(food)} avait {name(friend)} ?", "{number(friend_count, food)}"),
        ("combien de {plural(food)} cela faisait-il en tout ?", "{total(hero_count, friend_count)}"),
        ("comment se sentit {name(friend)} à la fin ?", "{feeling(feeling, friend)}"),
        ("qu’ apprit {name(hero)} ?", "{moral(moral)}"),
    ),
    summary="{name(hero)} {the_animal(hero_kind, hero)} {animal(hero_kind, hero)} et {name(friend)} "
    "{the_animal(friend_kind, friend)} {animal(friend_kind, friend)} réunirent "
    "{total(hero_count, friend_count)} {plural(food)} .",
    entities={
        "name": "PERSON",
        "animal": "ANIMAL",
        "home": "PLACE",
        "spot": "PLACE",
    },
    join=join,
)
