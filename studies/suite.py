"""Race the textbook's optimizers on every built-in task by the full protocol, and write the results to commit.

python studies/suite.py            # an hour or more on two cores; writes src/gradprix/show/evidence.json
python studies/suite.py --out X    # keep the races in X instead of runs/suite; run again to resume
"""

import argparse
import json
from pathlib import Path

from gradprix.race import Local, progress, suite, suite_plans
from gradprix.race.record_json import to_json
from gradprix.show import EVIDENCE
from gradprix.show._suite import profile
from gradprix.show.figure import export
from gradprix.text.suite import format_suite
from gradprix.utils.run_info import describe_run

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "_static"
NOTE = "Bands: 95 % intervals over problems drawn with replacement."


def main() -> None:
    """Race on all tasks, and write the summary, with machine and versions, and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/suite"), help="folder of the races")
    out = parser.parse_args().out
    with progress() as watch:
        result = suite(suite_plans(), out, Local(), watch)
    summary = {"text": format_suite(result), **to_json(result)}
    header = describe_run("python studies/suite.py", sum(task["seconds"] for task in summary["tasks"].values()))
    EVIDENCE.write_text(json.dumps({**header, **summary}, indent=1) + "\n")
    PICTURES.joinpath("suite-profile.png").write_bytes(export(profile(summary), "png", NOTE))
    print("\n".join(summary["text"]))


if __name__ == "__main__":
    main()
