"""Does looking again and again make wins out of luck?

Races of equal entries, simulated: the metrics of each seed have a part that is common to all entries and one of
each entry's own. At every fixed look (16, 32, 64 seeds) the verdict is taken with what the looks before have left of
the 5 %. Counted are races with a false *wins* or *slightly ahead* at any look; and, for comparison, the same with 5 %
at every look.

    python benchmarks/looks.py              # about ten minutes on two cores; writes benchmarks/looks.json
    python benchmarks/looks.py --races 200
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from gradprix.race import judge
from gradprix.stats.alpha_spending import LOOKS, next_level

ENTRIES = 4
FILE = Path(__file__).with_suffix(".json")


def falsely_told(seed: int) -> tuple[bool, bool]:
    """Whether a race of equal entries tells any two apart at any look: with the error spent, and with 5 % each time."""
    noise = np.random.default_rng(seed)
    seeds = LOOKS[-1][0]
    values = noise.standard_normal(seeds) + noise.standard_normal((ENTRIES, seeds))
    taken: list[tuple[int, float]] = []
    told = [False, False]
    for count, _ in LOOKS:
        taken.append((count, next_level(taken, count)))
        table = {str(name): row[:count].tolist() for name, row in enumerate(values)}
        for way, share in enumerate((taken[-1][1], 0.05)):
            verdict = judge(table, higher_is_better=True, margin=0.0, level=share)
            told[way] |= any(pair.words in ("wins", "slightly ahead") for pair in verdict.pairs)
    return told[0], told[1]


def main() -> None:
    """Simulate, print, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=2_000, help="how many races to simulate")
    races = parser.parse_args().races
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        told = np.array(list(pool.map(falsely_told, range(races), chunksize=20)))
    spent, each = told.mean(0)
    error = (0.05 * 0.95 / races) ** 0.5
    print(f"{races} races of {ENTRIES} equal entries, looked at with {', '.join(str(n) for n, _ in LOOKS)} seeds:")
    bound = 0.05 + 2 * error
    print(f"told apart at some look: {spent:.1%} with the error spent (5 % and two standard errors: {bound:.1%})")
    print(f"                         {each:.1%} with 5 % at every look")
    about = {"command": "python benchmarks/looks.py", "races": races, "entries": ENTRIES}
    found = {**about, "spent": spent, "each": each}
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
