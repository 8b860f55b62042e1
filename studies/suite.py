"""Race classic and newer optimizers on every built-in task by the full protocol, and write the results to commit.

    python studies/suite.py                  # two hours on two cores; run again to resume
    python studies/suite.py --tasks digits   # only the race on one task
    python studies/suite.py --collect        # only write the records of the races that are finished
    python studies/suite.py --confirm        # only race those pairs again whose rank reversal rests on one race
    python studies/suite.py --summarize      # only summarize the records that exist, or those of --tasks

Without an option it does everything in this order:

1. Races of `published_entries`, task by task, in `runs/suite` (`--out`). The record of each race is written to
   `studies/suite/<task>.json.gz` as soon as it is finished; see `suite_records.py`.
2. Second races of two entries with another base seed, in `runs/suite/second`: where the weaker side of a rank reversal
   rests on a single task, on that task. Results: `studies/suite/second_races.json`.
3. The evidence of the package, `src/gradprix/race/evidence.json`, and the figure of `docs/which-first.md`. They follow
   from the files of the first two steps alone.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import asdict, replace

from aa_tests import RememberingExecutor
from gradprix.race import JournalError, Local, RaceRecord, load, progress, published_entries, run, summed_up
from gradprix.race.config import make_plan
from gradprix.race.evidence import Evidence, Machine, write_evidence
from gradprix.race.suite_record import RankReversal, SecondRace, SuiteSummary
from gradprix.show._suite_profile import profile
from gradprix.show.figure import export
from gradprix.stats.verdict import PairVerdict
from gradprix.tasks import ALL
from gradprix.text.suite import format_suite
from gradprix.utils.run_info import describe_machine
from suite_records import FOLDER, SUFFIX, suite_machine, suite_records, write_file

OUT = Path("runs/suite")
SECOND_RACES = FOLDER / "second_races.json"
SECOND_SEED = 1
"""Base seed of the second races; that of the suite is 0."""
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "_static" / "suite-profile.svg"


def race(names: Sequence[str], out: Path) -> None:
    """Race on tasks, one after the other, and write the record of each race."""
    engine = Local()
    for name in names:
        with progress() as watch:
            save(name, run(make_plan(name, published_entries(name)), out / name, engine, watch).record)


def collect(names: Sequence[str], out: Path) -> None:
    """Write the records of those races that are finished."""
    for name in names:
        try:
            save(name, load(out / name).record)
        except (JournalError, FileNotFoundError) as error:
            print(f"{name}: {error}")


def save(name: str, record: RaceRecord) -> None:
    """Write the record of a race, and print its size and its answer."""
    file = FOLDER / f"{name}{SUFFIX}"
    write_file(record, describe_machine(), file)
    seconds, size = record.cost.seconds, file.stat().st_size / 1000
    print(f"{name}: {record.verdict.recommended}, {seconds / 60:.0f} minutes, {size:.0f} kB", flush=True)


def confirm(names: Sequence[str], out: Path) -> None:
    """Race pairs again whose rank reversal rests on a single task for the weaker side, each on that task.

    Results are written after each race, and not repeated unless the plan of the first race changes; those of other
    first races are dropped. Pairs on the same task share the runs of their entries.
    """
    records = suite_records()
    keys = {record.key for record in records.values()}
    known = {place: race for place, race in second_races().items() if place[0] in keys}
    write_second_races(known)
    weak = [each for each in summed_up(records).reversals if each.weak_task in names]
    for name in names:
        engine = RememberingExecutor()
        for reversal in (each for each in weak if each.weak_task == name):
            winner, loser = sides(reversal)
            place = records[name].key, winner, loser
            if place not in known:
                known[place] = race_again(records[name], winner, loser, engine, out / "second" / name)
                write_second_races(known)


def sides(reversal: RankReversal) -> tuple[str, str]:
    """Return the entry that wins on the weak task, and the one that loses there."""
    a, b = reversal.a, reversal.b
    return (a, b) if reversal.weak_task in reversal.a_wins else (b, a)


def race_again(record: RaceRecord, winner: str, loser: str, engine: RememberingExecutor, folder: Path) -> SecondRace:
    """Race two entries with another base seed and the same trials and seeds.

    Args:
        record: record of the first race.
        winner: name of the entry that won the first race against the other.
        loser: name of the other entry.
        engine: executor, which trains equal trials of several races once.
        folder: folder for the races on the task.
    """
    settings = {"trials": record.plan.trials, "seeds": record.plan.seeds, "seed": SECOND_SEED}
    plan = make_plan(record.task, [winner, loser], **settings)
    with progress() as watch:
        second = run(plan, folder / f"{winner} {loser}", engine, watch).record
    pair, margin = second.pair(winner, loser), second.plan.metric.least(second.ranking[0].final.mean)
    low, high = (end / margin for end in pair.ci95)
    wins = pair.a == winner
    result = SecondRace(
        task=record.task,
        winner=winner,
        loser=loser,
        seed=SECOND_SEED,
        seeds=second.budget.seeds,
        difference=pair.difference / margin if wins else -pair.difference / margin,
        ci95=(low, high) if wins else (-high, -low),
        confirmed=wins and pair.verdict is PairVerdict.WINS,
    )
    print(f"{record.task}: {winner} against {loser} {'confirmed' if result.confirmed else 'not confirmed'}", flush=True)
    return result


SecondRaces = dict[tuple[str, str, str], SecondRace]
"""Results of second races, by the key of the first race's plan, its winner and its loser."""


def second_races() -> SecondRaces:
    """Return the results of the second races."""
    text = SECOND_RACES.read_bytes() if SECOND_RACES.exists() else b"{}"
    races = msgspec.json.decode(text, type=dict[str, list[SecondRace]])
    return {(key, each.winner, each.loser): each for key, results in races.items() for each in results}


def write_second_races(races: SecondRaces) -> None:
    """Write the results of second races: a list for each first race, by the key of its plan."""
    by_key: dict[str, list[SecondRace]] = {}
    for (key, _, _), result in races.items():
        by_key.setdefault(key, []).append(result)
    SECOND_RACES.write_bytes(msgspec.json.format(msgspec.json.encode(by_key)) + b"\n")


def summarize(names: Sequence[str]) -> Evidence:
    """Return the evidence that follows from the committed records and second races.

    Raises:
        ValueError: if the records are of several machines or versions, or there are none.
    """
    records = {name: record for name, record in suite_records().items() if name in names}
    versions = [record.versions for record in records.values()]
    if not versions or any(each != versions[0] for each in versions):
        raise ValueError(f"the races must have run with the same versions, not with {versions}.")
    known, summary = second_races(), summed_up(records)
    reversals = tuple(
        each
        if each.weak_task is None
        else replace(each, second_race=known.get((records[each.weak_task].key, *sides(each))))
        for each in summary.reversals
    )
    return Evidence(
        command="python studies/suite.py",
        machine=msgspec.convert(suite_machine(), Machine),
        versions=versions[0],
        seconds=sum(record.cost.seconds for record in records.values()),
        **{**asdict(summary), "reversals": reversals},
    )


def draw_profile(summary: SuiteSummary) -> str:
    """Return the figure of the performance profiles as SVG, without its date."""
    svg = export(profile(summary), "svg").decode()
    svg = re.sub(r" *<metadata>.*?</metadata>\n", "", svg, count=1, flags=re.DOTALL)
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


def main() -> None:
    """Run the steps that the command line selects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the races")
    parser.add_argument("--tasks", help="names of tasks, separated by commas; all by default")
    for step in ("collect", "confirm", "summarize"):
        parser.add_argument(f"--{step}", action="store_true")
    arguments = parser.parse_args()
    names, out = arguments.tasks.split(",") if arguments.tasks else list(ALL), arguments.out
    is_race = not (arguments.collect or arguments.confirm or arguments.summarize)
    is_everything = is_race and arguments.tasks is None  # the evidence of a part of the tasks is no default
    if is_race:
        race(names, out)
    if arguments.collect:
        collect(names, out)
    if arguments.confirm or is_everything:
        confirm(names, out)
    if arguments.summarize or is_everything:
        evidence = summarize(names)
        write_evidence(evidence)
        FIGURE.write_text(draw_profile(evidence))
        print("\n".join(format_suite(evidence)))


if __name__ == "__main__":
    main()
