"""The frame of every page: one style, readable in the dark, on a phone and on paper; nothing from elsewhere."""

import html
import itertools
from collections.abc import Iterable, Iterator, Sequence

from lmcourse.grading.outcomes import CRASHED, MISSING, NOT_IMPLEMENTED, PASSED, SYMBOLS, TOO_SLOW, WRONG
from lmcourse.grading.reports.words import clean

# Each page says what wrote it, so that a folder of pages is known for one before it is replaced.
GENERATOR = '<meta name="generator" content="lmcourse grade">'

# Even if a text of a learner's got through unescaped, the browser would load and run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_CLASSES = {
    PASSED: "passed",
    WRONG: "wrong",
    TOO_SLOW: "slow",
    CRASHED: "crashed",
    NOT_IMPLEMENTED: "open",
    MISSING: "missing",
}

# Text colours have a contrast of 4.5 or more on their ground, in both schemes (WCAG 2.2, 1.4.3).
_STYLE = (
    """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --soft: #5c6670; --line: #d5dae0; --card: #f6f8fa;
  --link: #0a58a8; --passed: #17703f; --wrong: #b3361f; --slow: #8a5a00; --crashed: #8d2f6d; --open: #5c6670;
  --missing: #5c6670; --mark: #ffe9a8; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181d; --text: #e4e8ec; --soft: #a3adb8; --line: #39424c;
  --card: #1d232a; --link: #7db8f0; --passed: #5fcf90; --wrong: #ff8f78; --slow: #f0b84a; --crashed: #ee97d0;
  --open: #a3adb8; --missing: #a3adb8; --mark: #5a4a12; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 3rem; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
body.page { max-width: 46rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .4rem 0; }
a { color: var(--link); }
.soft { color: var(--soft); }
.points { font-size: 1.6rem; font-weight: 650; }
.bar { height: .6rem; border: 1px solid var(--line); border-radius: .3rem; background: var(--card); overflow: hidden; }
.bar > div { height: 100%; background: var(--passed); print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.card { border: 1px solid var(--line); border-left: .3rem solid var(--colour, var(--line)); border-radius: .3rem;
  background: var(--card); padding: .6rem .9rem; margin: .7rem 0; break-inside: avoid; }
.card header { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; }
.card header .state { flex: 1; }
.state { color: var(--colour); font-weight: 600; white-space: nowrap; }
"""
    + "".join(f".{name} {{ --colour: var(--{name}); }}\n" for name in _CLASSES.values())
    + """
dl { margin: .5rem 0 0; }
dt { font-weight: 600; font-size: .85rem; color: var(--soft); margin-top: .4rem; }
dd { margin: 0; white-space: pre-wrap; }
dd.code, pre, code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .88rem; }
dd.code { border-left: 2px solid var(--line); padding-left: .6rem; }
pre { margin: 0; white-space: pre-wrap; }
mark { background: var(--mark); color: inherit; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; overflow-wrap: normal; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; text-align: left; vertical-align: top; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.text, th.text { overflow-wrap: anywhere; min-width: 9rem; }
th { font-size: .85rem; color: var(--soft); }
details { border: 1px solid var(--line); border-radius: .3rem; padding: .4rem .8rem; margin: .5rem 0; }
summary { cursor: pointer; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; margin-top: .5rem; }
.sides > div { min-width: 0; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
@media print { :root { color-scheme: light; --ground: #fff; --text: #000; --soft: #444; --line: #999; --card: #fff;
  --link: #000; --passed: #17703f; --wrong: #b3361f; --slow: #8a5a00; --crashed: #8d2f6d; --open: #444;
  --missing: #444; --mark: #ffe9a8; }
  body { max-width: none; padding: 0; font-size: 10.5pt; } }
"""
)


def escape(value: object, limit: int = 2_000) -> str:
    """Return a text as HTML that shows it and nothing else, cut to the limit."""
    return html.escape(clean(value, limit))


def page(title: str, body: Iterable[str], *, kind: str = "") -> Iterator[str]:
    """Yield a whole page, piece by piece.

    Args:
        title: as plain text.
        body: parts that are HTML already.
        kind: "page" for a narrow one, made for reading.
    """
    head = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        GENERATOR,
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        f'<body class="{kind}">',
    ]
    for piece in itertools.chain(head, body, ["</body>", "</html>"]):
        yield f"{piece}\n"


def css_class(state: str) -> str:
    """Return the class that gives a state its colour."""
    return _CLASSES.get(state, "wrong")


def state_mark(state: str) -> str:
    """Return a state as symbol and word, in its colour."""
    symbol = SYMBOLS.get(state, SYMBOLS[WRONG])
    return f'<span class="state {css_class(state)}">{symbol} {escape(state)}</span>'


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    """Return a table that scrolls by itself where it is too wide.

    Args:
        headings: as plain text.
        rows: cells that are HTML already.
        numbers: the columns that are set to the right.
    """
    return "\n".join(long_table(headings, rows, numbers=numbers))


def long_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()
) -> Iterator[str]:
    """Yield such a table piece by piece, a row each."""
    right = set(numbers)

    def cells(tag: str, values: Sequence[str]) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        kinds = ("number" if column in right else "text" for column in range(len(values)))
        return "".join(
            f'<{tag} class="{kind}"{scope}>{value}</{tag}>' for kind, value in zip(kinds, values, strict=True)
        )

    head = cells("th", [escape(heading) for heading in headings])
    yield f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>'
    for row in rows:
        yield f"<tr>{cells('td', row)}</tr>"
    yield "</tbody></table></div>"
