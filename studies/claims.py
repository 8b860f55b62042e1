"""Run the experiments of all claims, and write the results to commit. `docs/claims.md` is generated from them.

python studies/claims.py       # a few minutes on two cores; writes src/gradprix/claims/results.json
python studies/claims.py ID    # one claim; the results of the others are kept
"""

import argparse
import json

from gradprix.claims import ALL, RESULTS, load_results, run
from gradprix.cli._claims import watched
from gradprix.utils.run_info import describe_run


def main() -> None:
    """Run the experiments and write their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help="claims to run; all by default")
    ids = parser.parse_args().ids
    records = {record["id"]: record for record in load_results()["claims"]} if ids else {}
    with watched() as watch:
        results = run(ids or None, watch=watch)
    records |= {result.claim.id: result.to_dict() for result in results}
    ordered = [records[name] for name in ALL if name in records]
    header = describe_run("python studies/claims.py", round(sum(record["seconds"] for record in ordered)), "scipy")
    text = json.dumps({**header, "claims": ordered}, indent=1, ensure_ascii=False, allow_nan=False)
    RESULTS.write_text(text + "\n", "utf-8")
    for result in results:
        print(f"{result.claim.id}: {records[result.claim.id]['verdict']}")


if __name__ == "__main__":
    main()
