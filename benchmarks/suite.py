"""Which optimizer for which problem: the textbook's family on every built-in task, each race by the whole protocol.

python benchmarks/suite.py            # an hour or more on two cores; `gradprix list optimizers --for` tells from it
python benchmarks/suite.py --out X    # kept in X, runs/suite otherwise; goes on where it was left
"""

import argparse
import json
from pathlib import Path

from _made import made_by
from gradprix.race import Local, progress, suite, suite_plans
from gradprix.show import EVIDENCE
from gradprix.show._png import render_png
from gradprix.show._suite import profile, regrets

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "_static"
FIGURES = {
    "regrets": (regrets, "<b>Margins behind the best of each problem</b>  Bold: the leading group"),
    "profile": (profile, "<b>One choice for all</b>  Bands: 95 % over problems drawn with replacement"),
}


def main() -> None:
    """Race on all tasks, and write the summary with what it was made by."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/suite"), help="where the races are kept")
    out = parser.parse_args().out
    with progress() as watch:
        summary = suite(suite_plans(), out, Local(), watch)
    made = made_by("python benchmarks/suite.py", sum(task["seconds"] for task in summary["tasks"].values()))
    EVIDENCE.write_text(json.dumps({**made, **summary}, indent=1) + "\n")
    for name, (draw, title) in FIGURES.items():
        PICTURES.joinpath(f"suite-{name}.png").write_bytes(render_png(draw(summary), title))
    print("\n".join(summary["text"]))


if __name__ == "__main__":
    main()
