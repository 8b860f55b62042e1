"""The committed result of benchmarks/twins.py is what it says it is, and the README quotes it."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = json.loads((ROOT / "benchmarks" / "twins.json").read_text())


def wins(measure: str, way: str) -> int:
    """How many of the comparisons end with a copy beating its twin, counted anew."""
    return sum(row[measure][way] in (True, "wins") for row in RECORD["comparisons"])


def test_a_hundred_comparisons_of_ten_optimizers() -> None:
    pairs = {(row["entry"], *row["copies"]) for row in RECORD["comparisons"]}

    assert len(pairs) == len(RECORD["comparisons"]) == 100
    assert len({entry for entry, *_ in pairs}) == 10


def test_the_summary_is_what_the_comparisons_say() -> None:
    for measure, shares in RECORD["summary"].items():
        assert shares == {way: wins(measure, way) / 100 for way in ("usual", "race", "pair")}


def test_a_race_seldom_calls_a_twin_the_winner() -> None:
    assert wins("accuracy", "race") <= 5
    assert wins("accuracy", "usual") > 20


def test_the_readme_quotes_it() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())

    assert f"in {wins('accuracy', 'usual')} of 100 comparisons. In a gradprix race it does in " in text
    assert f"race it does in {wins('accuracy', 'race')}.**" in text
    told = sum(row["accuracy"]["pair"] in ("wins", "slightly ahead") for row in RECORD["comparisons"])
    assert f"Steadier tuning alone leaves {told}, the margin of half a point {wins('accuracy', 'pair')}, " in text
    assert f"By loss: {wins('loss', 'usual')} and {wins('loss', 'race')}.)" in text
