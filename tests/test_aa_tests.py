"""The committed A/A tests (studies/aa_tests.py): the summary follows from the comparisons, and the README quotes it."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = json.loads((ROOT / "studies" / "aa_tests.json").read_text())


def count_wins(measure: str, way: str) -> int:
    return sum(row[measure][way] in (True, "wins") for row in RECORD["comparisons"])


def test_a_hundred_comparisons_of_ten_optimizers() -> None:
    pairs = {(row["entry"], *row["copies"]) for row in RECORD["comparisons"]}

    assert len(pairs) == len(RECORD["comparisons"]) == 100
    assert len({entry for entry, *_ in pairs}) == 10


def test_the_summary_follows_from_the_comparisons() -> None:
    for measure, shares in RECORD["summary"].items():
        assert shares == {way: count_wins(measure, way) / 100 for way in ("usual", "race", "pair")}


def test_a_race_seldom_calls_a_replicate_the_winner() -> None:
    assert count_wins("accuracy", "race") <= 5
    assert count_wins("accuracy", "usual") > 20


def test_the_readme_quotes_it() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())

    assert f"in {count_wins('accuracy', 'usual')} of 100 comparisons. In a gradprix race it does in " in text
    assert f"race it does in {count_wins('accuracy', 'race')}.**" in text
    significant = sum(row["accuracy"]["pair"] in ("wins", "slightly ahead") for row in RECORD["comparisons"])
    margin = count_wins("accuracy", "pair")
    assert f"Steadier tuning alone leaves {significant}, the margin of half a point {margin}, " in text
    assert f"By loss: {count_wins('loss', 'usual')} and {count_wins('loss', 'race')}." in text
