"""The world of the fables: what can happen, whatever the language it is told in.

A four-footed hero sets out with some fruit or cakes in a basket, meets a bird who has some too, they put them
together, something good or bad comes of it, and the hero learns a lesson. The lesson, `theme`, is drawn first
and tilts most of what follows; the story names it only in its last sentence.

Values are ids. How a language says them is in that language's module.
"""

from lmcourse.datasets.fableworld.slots import Slot, World, distinct, independent, only_if, tilted

# Gender decides pronouns and, in some languages, agreement.
GENDERS = {
    "Ada": "feminine",
    "Bruno": "masculine",
    "Clara": "feminine",
    "Emil": "masculine",
    "Flora": "feminine",
    "Hugo": "masculine",
    "Iris": "feminine",
    "Jasper": "masculine",
    "Mira": "feminine",
    "Otto": "masculine",
    "Tilda": "feminine",
    "Victor": "masculine",
}
NAMES = tuple(GENDERS)

THEMES = ("courage", "patience", "kindness", "honesty", "thrift", "curiosity", "friendship", "humility")
MORALS_PER_THEME = 2

# A preferred value is drawn 6 times as often as another: one such word makes the theme likelier, none decides it.
BOOST = 6

TEMPERS = {
    "courage": ("bold", "timid", "eager"),
    "patience": ("patient", "hasty", "idle"),
    "kindness": ("gentle", "timid", "merry"),
    "honesty": ("honest", "proud", "hasty"),
    "thrift": ("careful", "idle", "patient"),
    "curiosity": ("curious", "eager", "bold"),
    "friendship": ("merry", "gentle", "honest"),
    "humility": ("proud", "careful", "curious"),
}
HERO_KINDS = {
    "courage": ("mouse", "bear", "lamb"),
    "patience": ("mole", "donkey", "badger"),
    "kindness": ("lamb", "hedgehog", "bear"),
    "honesty": ("fox", "badger", "cat"),
    "thrift": ("squirrel", "mole", "hedgehog"),
    "curiosity": ("cat", "otter", "mouse"),
    "friendship": ("otter", "hare", "donkey"),
    "humility": ("hare", "fox", "squirrel"),
}
HOMES = {
    "courage": ("hill", "wood"),
    "patience": ("river", "orchard"),
    "kindness": ("village", "barn"),
    "honesty": ("mill", "lake"),
    "thrift": ("barn", "oak"),
    "curiosity": ("sea", "wood"),
    "friendship": ("village", "river"),
    "humility": ("hill", "sea"),
}
WEATHERS = {
    "courage": ("stormy", "icy"),
    "patience": ("rainy", "snowy"),
    "kindness": ("frosty", "snowy"),
    "honesty": ("misty", "sunny"),
    "thrift": ("frosty", "icy"),
    "curiosity": ("misty", "windy"),
    "friendship": ("sunny", "rainy"),
    "humility": ("windy", "stormy"),
}
ERRANDS = {
    "courage": ("wolf", "marsh"),
    "patience": ("acorn", "ferry"),
    "kindness": ("aunt", "miller"),
    "honesty": ("ring", "debt"),
    "thrift": ("firewood", "debt"),
    "curiosity": ("rainbow", "seaside"),
    "friendship": ("cousin", "miller"),
    "humility": ("race", "queen"),
}
FOODS = {
    "courage": ("fig", "plum"),
    "patience": ("pear", "cherry"),
    "kindness": ("bun", "apple"),
    "honesty": ("apple", "fig"),
    "thrift": ("walnut", "carrot"),
    "curiosity": ("plum", "biscuit"),
    "friendship": ("bun", "biscuit"),
    "humility": ("carrot", "pear"),
}
SPOTS = {
    "courage": ("ford", "reeds"),
    "patience": ("gate", "roadside"),
    "kindness": ("hedge", "well"),
    "honesty": ("crossroads", "well"),
    "thrift": ("hedge", "gate"),
    "curiosity": ("reeds", "crossroads"),
    "friendship": ("bridge", "roadside"),
    "humility": ("bridge", "ford"),
}
MOODS = {
    "courage": ("anxious", "restless"),
    "patience": ("weary", "restless"),
    "kindness": ("hungry", "unhappy"),
    "honesty": ("anxious", "grumpy"),
    "thrift": ("hungry", "elderly"),
    "curiosity": ("sleepy", "shy"),
    "friendship": ("lonely", "shy"),
    "humility": ("grumpy", "lonely"),
}
FRIEND_KINDS = {
    "courage": ("robin", "gull"),
    "patience": ("heron", "stork"),
    "kindness": ("wren", "duck"),
    "honesty": ("magpie", "crow"),
    "thrift": ("crow", "thrush"),
    "curiosity": ("gull", "owl"),
    "friendship": ("goose", "duck"),
    "humility": ("swan", "goose"),
}
PLEAS = {
    "courage": ("dare", "dark"),
    "patience": ("wait", "road"),
    "kindness": ("wing", "thanks"),
    "honesty": ("lie", "took"),
    "thrift": ("winter", "nothing"),
    "curiosity": ("beyond", "moon"),
    "friendship": ("alone", "unknown"),
    "humility": ("finest", "right"),
}
ANSWERS = {
    "courage": ("together", "beside"),
    "patience": ("rest", "slowly"),
    "kindness": ("share", "beside"),
    "honesty": ("late", "tell"),
    "thrift": ("aside", "slowly"),
    "curiosity": ("look", "wind"),
    "friendship": ("now", "share"),
    "humility": ("learn", "late"),
}
FEELINGS = {
    "good": ("happy", "glad", "grateful", "hopeful"),
    "bad": ("sad", "sorry", "gloomy", "miserable"),
}
REASONS = {
    "good": ("plenty", "sky", "feast", "song", "supper"),
    "bad": ("thief", "rain", "river-fall", "crumb", "wind-took"),
}
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "white", "brown")

# How often it ends badly, in tenths: the careless and the faint-hearted fare worse.
BAD_ENDINGS = {"hasty": 7, "idle": 7, "proud": 7, "timid": 5}
BAD_ENDINGS_OTHERWISE = 2

GUESTS = ("guest_1", "guest_2", "guest_3")
COATS = ("coat_1", "coat_2", "coat_3")


def _ending(temper: str) -> tuple[int, int]:
    bad = BAD_ENDINGS.get(temper, BAD_ENDINGS_OTHERWISE)
    return 10 - bad, bad


def _within(name: str, parent: str, groups: dict[str, tuple[str, ...]]) -> Slot:
    """Return a slot that is even over the values of the parent's group, and never leaves it."""
    values = tuple(value for group in groups.values() for value in group)
    return Slot(name, values, (parent,), lambda given: [int(value in groups[given]) for value in values])


def _guest_slots() -> list[Slot]:
    named = ["hero", "friend"]
    guests, coats = [], []
    for guest, coat in zip(GUESTS, COATS, strict=True):
        guests.append(distinct(guest, NAMES, tuple(named)))
        coats.append(distinct(coat, COLOURS, [slot.name for slot in coats]))
        named.append(guest)
    recalled = [independent("first", dict.fromkeys("123", 1)), distinct("second", "123", ["first"])]
    return guests + coats + recalled


def meaning(*, binding: bool = False) -> World:
    """Return the full world of meanings.

    Args:
        binding: whether three guests in coats of three colours join in, and are told apart by colour later.
            The dialogue then gives way to them, so that the story keeps within its length.
    """
    spoken = {"silent": 1} if binding else {"spoken": 7, "silent": 1}
    slots = [
        independent("theme", dict.fromkeys(THEMES, 1)),
        tilted("temper", "theme", TEMPERS, boost=BOOST),
        tilted("hero_kind", "theme", HERO_KINDS, boost=BOOST),
        independent("hero", dict.fromkeys(NAMES, 1)),
        tilted("home", "theme", HOMES, boost=BOOST),
        tilted("weather", "theme", WEATHERS, boost=BOOST),
        independent("time", {"morning": 3, "afternoon": 2, "evening": 2}),
        tilted("errand", "theme", ERRANDS, boost=BOOST),
        independent("hero_count", dict.fromkeys("12345", 1)),
        tilted("food", "theme", FOODS, boost=BOOST),
        independent("colour", dict.fromkeys(COLOURS, 1)),
        tilted("spot", "theme", SPOTS, boost=BOOST),
        tilted("mood", "theme", MOODS, boost=BOOST),
        tilted("friend_kind", "theme", FRIEND_KINDS, boost=BOOST),
        distinct("friend", NAMES, ["hero"]),
        independent("friend_count", dict.fromkeys("12345", 1)),
        independent("dialogue", spoken),
        only_if(tilted("plea", "theme", PLEAS, boost=BOOST), "dialogue", "spoken"),
        only_if(tilted("answer", "theme", ANSWERS, boost=BOOST), "dialogue", "spoken"),
        Slot("ending", ("good", "bad"), ("temper",), _ending),
        _within("feeling", "ending", FEELINGS),
        _within("reason", "ending", REASONS),
        _within(
            "moral", "theme", {t: tuple(f"{t}-{n + 1}" for n in range(MORALS_PER_THEME)) for t in THEMES}
        ),
    ]
    return World(slots + (_guest_slots() if binding else []))
