"""Draw the pictures of README from the saved rows: `python -m tools.pictures`."""

import sys
from pathlib import Path

from lmcourse import plotting, results
from lmcourse.paths import course_root
from lmcourse.plotting.style import STYLE

# A control that knows no context would dwarf the others.
HIGHEST_EXCESS_BITS = 2.0


def excess_of_models() -> dict[str, dict[str, float]]:
    """Return each Fableworld model's mean excess by label, the best model last."""
    places = reversed(results.standings("fableworld", "excess_bits_per_token"))
    return {place.rows[0].model: place.parts() for place in places if place.mean <= HIGHEST_EXCESS_BITS}


def main(folder: Path | None = None) -> int:
    """Draw; return 1 if there is nothing to draw."""
    excess = excess_of_models()
    if not excess:
        print("no rows for fableworld: run `lmcourse results ch01` first.", file=sys.stderr)
        return 1
    import matplotlib as mpl

    folder = folder or course_root() / "docs"
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        plotting.excess_by_label(excess, height=1.1 + 0.3 * len(excess)).savefig(
            folder / "loss_by_phenomenon.png", dpi=110
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
