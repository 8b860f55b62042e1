"""Simulate the family-wise error rate of races with interim analyses.

The entries of each simulated race are equal: the metric of a seed is the sum of a part that all entries share and a
part of each entry's own. The entries are compared at every planned interim analysis (16, 32, 64 seeds), once at the
levels of the error spending function and once at 5 % each time. A race has a false claim if any analysis calls two
entries different (*wins* or *slightly ahead*).

    python studies/interim_analyses.py              # about ten minutes on two cores; writes interim_analyses.json
    python studies/interim_analyses.py --races 200
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from gradprix.race import judge
from gradprix.stats.alpha_spending import SPENDING_SCHEDULE, InterimAnalysis, next_level

ENTRIES = 4
FILE = Path(__file__).with_suffix(".json")


def simulate_race(seed: int) -> tuple[bool, bool]:
    """Return whether a race of equal entries makes a false claim, with error spending and with 5 % at each analysis."""
    generator = np.random.default_rng(seed)
    seeds = SPENDING_SCHEDULE[-1][0]
    values = generator.standard_normal(seeds) + generator.standard_normal((ENTRIES, seeds))
    analyses: list[InterimAnalysis] = []
    false_claim = [False, False]
    for count, _ in SPENDING_SCHEDULE:
        analyses.append((count, next_level(analyses, count)))
        table = {str(name): row[:count].tolist() for name, row in enumerate(values)}
        for i, level in enumerate((analyses[-1][1], 0.05)):
            verdict = judge(table, higher_is_better=True, margin=0.0, level=level)
            false_claim[i] |= any(pair.words in ("wins", "slightly ahead") for pair in verdict.pairs)
    return false_claim[0], false_claim[1]


def main() -> None:
    """Simulate the races, print the error rates and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=2_000, help="number of simulated races")
    races = parser.parse_args().races
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        false_claims = np.array(list(pool.map(simulate_race, range(races), chunksize=20)))
    spent, each = false_claims.mean(0)
    bound = 0.05 + 2 * (0.05 * 0.95 / races) ** 0.5
    seeds = ", ".join(str(count) for count, _ in SPENDING_SCHEDULE)
    print(f"{races} races of {ENTRIES} equal entries, analysed with {seeds} seeds")
    print(f"family-wise error rate: {spent:.1%} with error spending (5 % plus two standard errors: {bound:.1%})")
    print(f"                        {each:.1%} with 5 % at each analysis")
    settings = {"command": "python studies/interim_analyses.py", "races": races, "entries": ENTRIES}
    FILE.write_text(json.dumps({**settings, "spent": spent, "each": each}, indent=1) + "\n")


if __name__ == "__main__":
    main()
