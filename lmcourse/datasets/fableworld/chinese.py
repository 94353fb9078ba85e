"""Fableworld in Chinese (simplified characters): words, forms, sentences, and how they are written.

Words are written without spaces, yet a text has one segmentation only, and the longest word that fits is always
the right one. A test proves this of the vocabulary: wherever one word begins with another (一 and 一起), what is
left of the longer (起) begins no sequence of words, so that after the shorter word the text could not go on like
the longer. Whoever adds a word has to keep to that.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence

from lmcourse.datasets.fableworld import world
from lmcourse.datasets.fableworld.grammar import END, Language, Sentence, parse
from lmcourse.datasets.fableworld.slots import ABSENT, Slot, only_if, ways

NAMES = {
    "Ada": "艾达",
    "Bruno": "布鲁诺",
    "Clara": "克拉拉",
    "Emil": "埃米尔",
    "Flora": "弗洛拉",
    "Hugo": "雨果",
    "Iris": "伊丽丝",
    "Jasper": "贾斯珀",
    "Mira": "米拉",
    "Otto": "奥托",
    "Tilda": "蒂尔达",
    "Victor": "维克多",
}
ANIMALS = {
    "mouse": "老鼠",
    "bear": "黑熊",
    "lamb": "小羊",
    "mole": "鼹鼠",
    "donkey": "毛驴",
    "badger": "獾",
    "hedgehog": "刺猬",
    "fox": "狐狸",
    "cat": "花猫",
    "squirrel": "松鼠",
    "otter": "水獭",
    "hare": "野兔",
    "robin": "知更鸟",
    "gull": "海鸥",
    "heron": "苍鹭",
    "stork": "白鹳",
    "wren": "鹪鹩",
    "duck": "鸭子",
    "magpie": "喜鹊",
    "crow": "乌鸦",
    "thrush": "画眉",
    "owl": "猫头鹰",
    "goose": "大雁",
    "swan": "天鹅",
}
FOODS = {
    "fig": "无花果",
    "plum": "李子",
    "pear": "梨",
    "cherry": "樱桃",
    "bun": "面包",
    "apple": "苹果",
    "walnut": "核桃",
    "carrot": "胡萝卜",
    "biscuit": "饼干",
}
# The measure word that stands between a number and a noun is the noun's own: most animals are counted by 只, big
# ones by 头; small round things by 颗, long ones by 根, flat ones by 块, other food by 个.
MEASURES = {
    **dict.fromkeys(ANIMALS, "只"),
    **dict.fromkeys(("bear", "donkey"), "头"),
    **dict.fromkeys(("fig", "pear", "bun", "apple"), "个"),
    **dict.fromkeys(("plum", "cherry", "walnut"), "颗"),
    "carrot": "根",
    "biscuit": "块",
}
# Two is 两, never 二: every number here stands before a measure word.
NUMBERS = ("一", "两", "三", "四", "五", "六", "七", "八", "九", "十")
PRONOUNS = {"feminine": "她", "masculine": "他"}
COLOURS = {
    "red": "红色",
    "blue": "蓝色",
    "green": "绿色",
    "yellow": "黄色",
    "purple": "紫色",
    "orange": "橙色",
    "white": "白色",
    "brown": "棕色",
}
# What stands for one slot or for one choice between ways of telling; spaces separate words here, never in the text.
PHRASES = {
    "temper": {
        "bold": "大胆",
        "timid": "胆小",
        "eager": "热心",
        "patient": "耐心",
        "hasty": "急躁",
        "idle": "懒惰",
        "gentle": "温柔",
        "merry": "快活",
        "honest": "诚实",
        "proud": "骄傲",
        "careful": "细心",
        "curious": "好奇",
    },
    "home": {
        "hill": "山坡上",
        "wood": "森林深处",
        "river": "小河边",
        "orchard": "果园里",
        "village": "村庄旁",
        "barn": "谷仓后",
        "mill": "老磨坊旁",
        "lake": "湖边",
        "oak": "橡树下",
        "sea": "大海边",
    },
    "weather": {
        "stormy": "风雨交加",
        "icy": "天寒地冻",
        "rainy": "细雨绵绵",
        "snowy": "雪花纷飞",
        "frosty": "寒气逼人",
        "misty": "雾气蒙蒙",
        "sunny": "晴空万里",
        "windy": "北风呼啸",
    },
    "time": {"morning": "早晨", "afternoon": "下午", "evening": "傍晚"},
    "errand": {
        "wolf": "对付 恶狼",
        "marsh": "穿越 沼泽",
        "acorn": "种 橡子",
        "ferry": "等 渡船",
        "aunt": "照顾 姑妈",
        "miller": "帮助 磨坊主",
        "ring": "归还 戒指",
        "debt": "还清 欠债",
        "firewood": "捡 柴火",
        "rainbow": "追赶 彩虹",
        "seaside": "寻找 大海",
        "cousin": "看望 表弟",
        "race": "参加 赛跑",
        "queen": "拜见 女王",
    },
    "spot": {
        "ford": "浅滩边",
        "reeds": "芦苇丛里",
        "gate": "大门旁",
        "roadside": "大路边",
        "hedge": "树篱下",
        "well": "水井旁",
        "crossroads": "十字路口",
        "bridge": "小桥上",
    },
    "mood": {
        "anxious": "忧心忡忡",
        "restless": "心神不宁",
        "weary": "疲倦",
        "hungry": "饥饿",
        "unhappy": "愁眉苦脸",
        "grumpy": "坏脾气",
        "elderly": "年迈",
        "sleepy": "昏昏欲睡",
        "shy": "害羞",
        "lonely": "孤独",
    },
    "plea": {
        "dare": "我 不敢 往前 走",
        "dark": "我 很 怕 黑",
        "wait": "我 再也 等不及 了",
        "road": "路 太 长 了",
        "wing": "翅膀 疼 得 厉害",
        "thanks": "没有 谁 感谢 我",
        "lie": "我 撒 了 谎",
        "took": "我 偷 了 戒指",
        "winter": "冬天 我 会 挨饿",
        "nothing": "我 还 没有 存粮",
        "beyond": "我 想 看遍 世界",
        "moon": "我 想 要 月亮",
        "alone": "我 总是 孤零零 的",
        "unknown": "没有 谁 认识 我",
        "finest": "我 唱歌 最 好听",
        "right": "我 从 不 出错",
    },
    "answer": {
        "together": "我们 一起 走 吧",
        "beside": "我 陪 着 你",
        "rest": "先 歇 一会儿 吧",
        "slowly": "好事 要 慢慢 来",
        "share": "我们 一起 分享 吧",
        "late": "现在 还 不 晚",
        "tell": "真话 会 帮助 你",
        "aside": "我们 可以 存 一些",
        "look": "我们 去 看看 吧",
        "wind": "去 问问 风 吧",
        "now": "你 有 朋友 了",
        "learn": "我们 都 要 学习",
    },
    "feeling": {
        "happy": "很 快乐",
        "glad": "很 高兴",
        "grateful": "很 感激",
        "hopeful": "充满 希望",
        "sad": "很 难过",
        "sorry": "很 遗憾",
        "gloomy": "很 沮丧",
        "miserable": "很 伤心",
    },
    "reason": {
        "plenty": "吃的 还 剩 不少",
        "sky": "天空 又 放晴 了",
        "feast": "宴会 热闹 极 了",
        "song": "全村 都 在 唱歌",
        "supper": "晚饭 香 极 了",
        "thief": "小偷 偷光 了 一切",
        "rain": "大雨 毁 了 晚饭",
        "river-fall": "篮子 散 了 架",
        "crumb": "吃的 一点儿 不 剩",
        "wind-took": "大风 卷走 了 一切",
    },
    "moral": {
        "courage-1": "勇士 也 会 害怕",
        "courage-2": "小个子 也 有 勇气",
        "patience-1": "慢慢 走 总会 登顶",
        "patience-2": "耐心 会 结出 甜果",
        "kindness-1": "好心 总会 有 好报",
        "kindness-2": "暖心 话 不 花钱",
        "honesty-1": "真话 总是 值得 说",
        "honesty-2": "诚实 比 金子 珍贵",
        "thrift-1": "满仓 不 怕 冬天",
        "thrift-2": "小橡子 能 成 大树",
        "curiosity-1": "提问 能 打开 大门",
        "curiosity-2": "好奇 带 你 远行",
        "friendship-1": "重担 分担 就 轻",
        "friendship-2": "结伴 比 独自 暖和",
        "humility-1": "智者 也 要 倾听",
        "humility-2": "骄傲 总会 摔 跟头",
    },
    "naming": {"called": "名叫", "named": "叫做"},
    "friend_speech": {
        "said": "说",
        "sighed": "叹息 着 说",
        "whispered": "悄悄 地 说",
        "cried": "大声 地 喊",
    },
    "hero_speech": {
        "said": "说",
        "answered": "回答 说",
        "replied": "答道",
        "laughed": "笑 着 说",
    },
}

FORMS = {
    "name": NAMES.__getitem__,
    "animal": ANIMALS.__getitem__,
    "food": FOODS.__getitem__,
    "colour": COLOURS.__getitem__,
    "number": lambda count: NUMBERS[int(count) - 1],
    "measure": MEASURES.__getitem__,
    "total": lambda first, second: NUMBERS[int(first) + int(second) - 1],
    "they": lambda name: PRONOUNS[world.GENDERS[name]],
    "coat": lambda which, *coats: COLOURS[coats[int(which) - 1]],
    "guest": lambda which, *guests: NAMES[guests[int(which) - 1]],
    **{form: table.__getitem__ for form, table in PHRASES.items()},
}


def phrasing(binding: bool) -> Sequence[Slot]:
    """Return the slots that choose between ways of saying the same in Chinese."""
    slots = [
        ways("opening", once=3, lived=2, ago=2),
        ways("naming", called=2, named=1),
        ways("setting", put=1, carried=1),
        ways("meeting", met=2, stood=1, came=1),
        only_if(ways("friend_speech", said=1, sighed=2, whispered=1, cried=1), "dialogue", "spoken"),
        only_if(ways("hero_speech", said=1, answered=2, replied=1, laughed=2), "dialogue", "spoken"),
        ways("summing", put=1, opened=1, looked=1),
        ways("closing", soon=1, nightfall=1, end=1),
        ways("lesson", said=1, tell=1, learned=1, forgot=1),
    ]
    return slots + ([ways("arriving", came=1, joined=1)] if binding else [])


_HERO = "一 {agreement:measure(hero_kind)} {topic:temper(temper)} 的 {topic:animal(hero_kind)}"
_NAMED = "{naming(naming)} {noise:name(hero)}"
_FRIEND = (
    "一 {agreement:measure(friend_kind)} {topic:mood(mood)} 的 {topic:animal(friend_kind)} ， "
    "名叫 {noise:name(friend)}"
)
_WEATHER, _TIME = "{topic:weather(weather)}", "{noise:time(time)}"
_HERO_FOOD = "{noise:number(hero_count)} {agreement:measure(food)} {topic:food(food)}"
_FRIEND_FOOD = "{noise:number(friend_count)} {agreement:measure(food)} {copy-attribute:food(food)}"
_FOOD = "{copy-attribute:food(food)}"
_BASKET = "一 个 {noise:colour(colour)} 篮子"
_SAME_BASKET = "{copy-attribute:colour(colour)} 篮子"
_SUM = "{sum:total(hero_count, friend_count)} {agreement:measure(food)}"
_MIRA, _OTTO = "{copy-name:name(hero)}", "{copy-name:name(friend)}"
_FELT = "{topic:feeling(feeling)}"
_REASON = "{topic:reason(reason)} 。"
_MORAL = "{topic:moral(moral)}"
_SHE, _HE = "{agreement:they(hero)}", "{agreement:they(friend)}"


def _guest(number: int) -> str:
    return f"一身 {{noise:colour(coat_{number})}} 的 {{noise:name(guest_{number})}}"


# The hero is not named again in the meeting, nor called by a pronoun: Chinese leaves out a subject that is clear.
_STORY = {
    "opening": Sentence(
        "opening",
        {
            "once": f"从前 ， {{topic:home(home)}} 有 {_HERO} ， {_NAMED} 。",
            "lived": f"{{topic:home(home)}} 住 着 {_HERO} ， {_NAMED} 。",
            "ago": f"很久以前 ， {{topic:home(home)}} 有 {_HERO} ， {_NAMED} 。",
        },
    ),
    "setting": Sentence(
        "setting",
        {
            "put": f"{_WEATHER} 的 {_TIME} ， {_SHE} 把 {_HERO_FOOD} 装进 {_BASKET} ， "
            "出门 去 {topic:errand(errand)} 。",
            "carried": f"这天 {_TIME} {_WEATHER} ， {_SHE} 用 {_BASKET} 装 了 {_HERO_FOOD} ， "
            "去 {topic:errand(errand)} 。",
        },
    ),
    "meeting": Sentence(
        "meeting",
        {
            "met": f"来到 {{topic:spot(spot)}} ， 遇见 了 {_FRIEND} ， {_HE} 有 {_FRIEND_FOOD} 。",
            "stood": f"{{topic:spot(spot)}} 站 着 {_FRIEND} ， {_HE} 带 着 {_FRIEND_FOOD} 。",
            "came": f"{{topic:spot(spot)}} 走 来 {_FRIEND} ， {_HE} 也 有 {_FRIEND_FOOD} 。",
        },
    ),
    "plea": Sentence(
        "dialogue",
        {
            "spoken": f"“ {_MIRA} ， {{topic:plea(plea)}} 。 ” {{copy-attribute:animal(friend_kind)}} "
            "{friend_speech(friend_speech)} 。",
            "silent": "",
        },
    ),
    "answer": Sentence(
        "dialogue",
        {
            "spoken": f"“ {_OTTO} ， {{topic:answer(answer)}} 。 ” {{copy-attribute:animal(hero_kind)}} "
            "{hero_speech(hero_speech)} 。",
            "silent": "",
        },
    ),
    "summing": Sentence(
        "summing",
        {
            "put": f"{_MIRA} 把 {_FOOD} 装进 {_SAME_BASKET} ， 一共 有 {_SUM} 。",
            "opened": f"{_MIRA} 打开 {_SAME_BASKET} ， 合起来 一共 有 {_SUM} {_FOOD} 。",
            "looked": f"{_MIRA} 看看 {_SAME_BASKET} ， 里面 一共 有 {_SUM} {_FOOD} 。",
        },
    ),
    "closing": Sentence(
        "closing",
        {
            "soon": f"不久 {_OTTO} 觉得 {_FELT} ， 因为 {_REASON}",
            "nightfall": f"当晚 {_OTTO} 心里 {_FELT} ， 因为 {_REASON}",
            "end": f"结果 {_OTTO} 感到 {_FELT} ， 因为 {_REASON}",
        },
    ),
    "lesson": Sentence(
        "lesson",
        {
            "said": f"“ {_MORAL} 。 ” {_MIRA} 对 {_OTTO} 说 。",
            "tell": f"“ {_MORAL} 。 ” {_MIRA} 常常 对 {_OTTO} 说 。",
            "learned": f"{_MIRA} 懂得 了 {_MORAL} 的 道理 ， {_OTTO} 也 同意 。",
            "forgot": f"{_MIRA} 永远 记得 {_MORAL} 的 道理 ， {_OTTO} 也 一样 。",
        },
    ),
}
_ARRIVAL = Sentence(
    "arriving",
    {
        "came": f"{_guest(1)} 、 {_guest(2)} 和 {_guest(3)} 也 来 了 。",
        "joined": f"又 来 了 {_guest(1)} 、 {_guest(2)} 和 {_guest(3)} 。",
    },
)
_SUITED = Sentence(
    "dialogue",
    {
        "silent": "{copy-attribute:coat(first, coat_1, coat_2, coat_3)} 很 配 "
        "{binding:guest(first, guest_1, guest_2, guest_3)} ， "
        "{copy-attribute:coat(second, coat_1, coat_2, coat_3)} 很 配 "
        "{binding:guest(second, guest_1, guest_2, guest_3)} 。",
    },
)


def sentences(binding: bool) -> Sequence[Sentence]:
    """Return the sentences of a story, in order: the same ones as in English."""
    told = dict(_STORY)
    if not binding:
        return tuple(told.values())
    lesson = told.pop("lesson")
    order = [told["opening"], told["setting"], told["meeting"], _ARRIVAL]
    return (*order, told["summing"], told["closing"], _SUITED, lesson)


_QUESTIONS = (
    ("谁 住 在 {home(home)} ？", "{name(hero)}"),
    ("{name(hero)} 住 在 哪里 ？", "{home(home)}"),
    ("{name(hero)} 是 什么 动物 ？", "{animal(hero_kind)}"),
    ("篮子 是 什么 颜色 的 ？", "{colour(colour)}"),
    ("{name(hero)} 在 {spot(spot)} 遇见 了 谁 ？", "{name(friend)}"),
    ("{name(hero)} 在 哪里 遇见 了 {name(friend)} ？", "{spot(spot)}"),
    ("{name(friend)} 有 几 {measure(food)} {food(food)} ？", "{number(friend_count)}"),
    ("两 个 朋友 一共 有 几 {measure(food)} {food(food)} ？", "{total(hero_count, friend_count)}"),
    ("{name(friend)} 后来 觉得 怎么样 ？", "{feeling(feeling)}"),
    ("{name(hero)} 懂得 了 什么 道理 ？", "{moral(moral)}"),
)
_SUMMARY = (
    "{animal(hero_kind)} {name(hero)} 遇见 了 {animal(friend_kind)} {name(friend)} ， "
    "两 个 朋友 一共 有 {total(hero_count, friend_count)} {measure(food)} {food(food)} 。"
)


@functools.lru_cache(maxsize=1)
def words() -> frozenset[str]:
    """Return every word and mark of the stories, with or without binding, of the questions and the summaries."""
    told = [sentence for binding in (False, True) for sentence in sentences(binding)]
    templates = [template for sentence in told for template in sentence.templates.values()]
    templates += [_SUMMARY, *itertools.chain(*_QUESTIONS)]
    slots = world.meaning(binding=True).slots | {slot.name: slot for slot in phrasing(True)}
    return frozenset(
        token
        for piece in {piece for template in templates for piece in parse(template)}
        for values in itertools.product(*(slots[name].values for name in piece.slots))
        if ABSENT not in values
        for token in piece.tokens(FORMS, values)
    )


@functools.lru_cache(maxsize=1)
def _token() -> re.Pattern[str]:
    """Return the pattern of the longest word, or of one character where no word begins."""
    longest_first = sorted(words(), key=lambda word: (-len(word), word))
    return re.compile("|".join(map(re.escape, longest_first)) + r"|\S")


def tokenize(text: str, end: bool = True) -> tuple[str, ...]:
    """Return the canonical tokens of Chinese text.

    At each place the longest word is taken, which is the right one (see the module). A character that begins no
    word of Fableworld is a token of its own. Each line is a story: the end token stands between lines.

    Args:
        text: one or more stories.
        end: whether the last story is complete, so that the end token closes it.

    Example:
        >>> tokenize("我们一起去看看吧", end=False)
        ('我们', '一起', '去', '看看', '吧')
    """
    lines = [line for line in text.splitlines() if line.strip()]
    tokens: list[str] = []
    for number, line in enumerate(lines):
        tokens.extend(_token().findall(line))
        if end or number + 1 < len(lines):
            tokens.append(END)
    return tuple(tokens)


def detokenize(tokens: Iterable[str]) -> str:
    """Return Chinese text as a book prints it; the end token ends a line, the last one nothing.

    Example:
        >>> detokenize(("“", "米拉", "，", "路", "太", "长", "了", "。", "”", "大雁", "说", "。", END))
        '“米拉，路太长了。”大雁说。'
    """
    return "".join("\n" if token == END else token for token in tokens).removesuffix("\n")


CHINESE = Language(
    code="zh",
    forms=FORMS,
    phrasing=phrasing,
    sentences=sentences,
    tokenize=tokenize,
    detokenize=detokenize,
    questions=_QUESTIONS,
    summary=_SUMMARY,
    entities={
        "name": "PERSON",
        "animal": "ANIMAL",
        "home": "PLACE",
        "spot": "PLACE",
    },
    join="".join,
)
