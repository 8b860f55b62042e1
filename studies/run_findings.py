"""Test findings of the literature, and write the results to commit. `docs/findings.md` is generated from them.

python studies/run_findings.py            # all findings that have no result yet; minutes each on one core
python studies/run_findings.py ID ...     # these findings; their former results are replaced
python studies/run_findings.py --quick    # all findings with few seeds; prints the results and writes nothing
python studies/run_findings.py --list     # ids, verdicts and titles
"""

import argparse
import os
import time
from pathlib import Path

from findings import ALL, records
from findings.registry import Finding


def measure(finding: Finding, quick: bool) -> dict:
    """Run the experiment of a finding, print its result, and return the record."""
    before, start_time = os.times(), time.perf_counter()
    quantities = finding.measure(quick)
    after = os.times()
    cpu_seconds = sum(after[:4]) - sum(before[:4])  # of this process and of finished child processes
    record = records.make_record(finding, quantities, time.perf_counter() - start_time, cpu_seconds)
    print(f"{finding.id}: {record['verdict']} ({record['seconds']:.0f} s, {record['cpu_seconds']:.0f} s of CPU)")
    print(f"    {record['sentence']}", flush=True)
    return record


def main() -> None:
    """Run the experiments and write their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help="findings to test; all without a result by default")
    parser.add_argument("--quick", action="store_true", help="use few seeds, and write nothing")
    parser.add_argument("--list", action="store_true", help="list the findings")
    parser.add_argument("--out", type=Path, default=records.RESULTS, help="folder of the results")
    options = parser.parse_args()
    if unknown := set(options.ids) - set(ALL):
        parser.error(f"unknown findings: {', '.join(sorted(unknown))}; known are {', '.join(ALL)}")
    if options.list:
        for name, finding in ALL.items():
            record = records.load(name, options.out)
            print(f"{name}: {record['verdict'] if record else 'no result yet'}. {finding.title}")
        return
    chosen = options.ids or [name for name in ALL if options.quick or records.load(name, options.out) is None]
    for number, name in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {name}", flush=True)
        record = measure(ALL[name], options.quick)
        if not options.quick:
            print(f"    {records.save(record, options.out)}", flush=True)


if __name__ == "__main__":
    main()
