"""What the popular account of optimizers claims: every claim put to the test, by rules that were fixed beforehand.

python benchmarks/claims.py           # some minutes on two cores; docs/claims.md is made from what it writes
"""

import argparse
import json

from _made import made_by
from gradprix.claims import ALL, RESULTS, committed, run
from gradprix.cli._claims import watched


def main() -> None:
    """Test all claims, and write what was found with what it was found by."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help="all when left out")
    ids = parser.parse_args().ids
    before = {record["id"]: record for record in committed()["claims"]} if ids else {}
    with watched() as watch:
        found = {result.claim.id: result.to_dict() for result in run(ids or None, watch=watch)}
    kept = {**before, **found}
    records = [kept[name] for name in ALL if name in kept]
    made = made_by("python benchmarks/claims.py", round(sum(record["seconds"] for record in records)), "scipy")
    RESULTS.write_text(json.dumps({**made, "claims": records}, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    for record in found.values():
        print(f"{record['id']}: {record['verdict']}")


if __name__ == "__main__":
    main()
