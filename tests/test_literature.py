"""Findings of the literature: texts, decision rules that can give each verdict, committed results, and their page."""

import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gradprix import claims
from gradprix.claims import Measured
from gradprix.rules import adamw, ema
from gradprix.tasks import digits
from test_claims import unmeasured

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "studies"))

import run_findings  # noqa: E402, studies are not installed
from findings import ALL, FINDINGS, WORDS, Finding, format_verdict, records  # noqa: E402
from findings.batch_size import HALF_LIFE, beta2  # noqa: E402
from findings.early_ranks import is_reversed, rank_correlation, split_correlation  # noqa: E402
from findings.training import Arm, train, tune  # noqa: E402

FINDINGS_LIST = pytest.mark.parametrize("finding", ALL.values(), ids=list(ALL))
CLAIMS = tomllib.loads((records.FOLDER / "claims.toml").read_text("utf-8"))
PLANTED = [(name, i) for name, texts in FINDINGS.texts.items() for i in range(len(texts["planted"]))]


@FINDINGS_LIST
def test_a_finding_has_texts_with_its_source(finding: Finding) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", finding.id)
    assert len(finding.title) <= 70
    assert re.search(r"arXiv:\d{4}\.\d{5}|doi:|JMLR", finding.source)
    assert finding.measured, "quantities have descriptions"
    for text in (
        finding.statement,
        finding.original,
        finding.here,
        finding.prediction,
        finding.decides,
        finding.limits,
    ):
        assert text.strip().endswith((".", "?"))
        assert "{" not in text
    assert re.search(r"\b[Hh]olds", finding.decides)
    assert "oes not hold" in finding.decides


def test_all_findings_of_the_texts_are_registered() -> None:
    assert list(ALL) == list(FINDINGS.texts)


@pytest.mark.parametrize(("name", "case"), PLANTED)
def test_a_decision_rule_gives_the_verdict_of_planted_quantities(name: str, case: int) -> None:
    planted: dict[str, Any] = dict(FINDINGS.texts[name]["planted"][case])
    expected = planted.pop("verdict")
    quantities = {key: decode(value) for key, value in planted.items()}
    decision = ALL[name].decide(quantities)
    assert (decision[0] if isinstance(decision, tuple) else decision) == expected
    assert isinstance(decision, tuple) == (expected == "holds only if")


def decode(value: Any) -> Any:
    """Return `[estimate, low, high]` as a quantity, and other values as they are."""
    if isinstance(value, list) and len(value) == 3 and all(isinstance(x, int | float) for x in value):
        return Measured("", value[0], (value[1], value[2]), 16)
    return value


@FINDINGS_LIST
def test_a_decision_rule_can_give_each_verdict(finding: Finding) -> None:
    verdicts = {case["verdict"] for case in FINDINGS.texts[finding.id]["planted"]}
    assert verdicts & {"holds", "holds only if"}
    assert {"does not hold", "inconclusive"} <= verdicts


@FINDINGS_LIST
def test_the_committed_result_follows_from_its_quantities(finding: Finding) -> None:
    record = records.load(finding.id)
    assert record is not None, f"run python studies/run_findings.py {finding.id}"
    quantities = records.read_quantities(record)
    conclusion = finding.conclude(quantities)
    assert record["verdict"] == format_verdict(conclusion.verdict, conclusion.condition)
    assert record["sentence"] == conclusion.says
    assert record["decides"] == finding.decides, "it was decided by another rule: run it again"
    assert record["prediction"] == finding.prediction
    assert {"command", "machine", "versions", "seconds", "cpu_seconds"} <= record.keys()
    for measured in conclusion.measured:
        assert measured.what, "quantities have descriptions"
        assert measured.ci95[0] <= measured.effect <= measured.ci95[1]


@FINDINGS_LIST
def test_the_sentence_says_only_what_was_measured(finding: Finding) -> None:
    record = records.load(finding.id)
    if record is None:
        pytest.skip("no result yet, which the test above reports")
    measured = [value for value in record["quantities"].values() if isinstance(value, dict) and "ci95" in value]
    texts = {"statement": f"{finding.statement} {finding.here}", "prediction": finding.prediction}
    assert unmeasured({**texts, "decides": finding.decides, "measured": measured, "says": record["sentence"]}) == []


def test_no_result_is_left_of_a_finding_that_is_gone() -> None:
    assert {file.stem for file in records.RESULTS.glob("*.json")} <= set(ALL)


def test_a_record_keeps_quantities_and_other_values(tmp_path: Path) -> None:
    finding = next(iter(ALL.values()))
    given = {key: decode(value) for key, value in FINDINGS.texts[finding.id]["planted"][0].items() if key != "verdict"}
    quantities = {**dict.fromkeys(finding.measured, Measured("", 1.0, (0.5, 1.5), 4)), **given, "rates": [0.1, 0.2]}
    record = records.make_record(finding, quantities, 1.0, 2.0)
    records.save(record, tmp_path)
    restored = records.read_quantities(records.load(finding.id, tmp_path) or {})
    assert restored == {**quantities, **finding.describe(quantities)}
    assert record["verdict"] in WORDS.values()
    assert records.load("none", tmp_path) is None


@pytest.mark.slow
@FINDINGS_LIST
def test_a_quick_run_measures_everything(finding: Finding) -> None:
    quantities = finding.measure(True)
    conclusion = finding.conclude(quantities)
    assert conclusion.verdict in claims.VERDICTS
    assert all(m.what for m in conclusion.measured)
    if finding.draw is not None:
        assert "<svg" in "".join(finding.draw(quantities).svgs())


def test_the_command_measures_those_without_a_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[tuple[str, bool]] = []

    def finding(name: str) -> Finding:
        texts = dict.fromkeys(("title", "original", "here", "limits", "statement", "prediction", "decides"), "x.")
        quantities = {"gain": Measured("", 1.0, (0.5, 1.5), 4)}

        def measure(quick: bool) -> dict[str, Measured]:
            measured.append((name, quick))
            return quantities

        return Finding(id=name, measure=measure, decide=lambda m: "holds", say=lambda m: "It is 1.", **texts)

    monkeypatch.setattr(run_findings, "ALL", {name: finding(name) for name in ("a", "b")})

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["run_findings.py", "--out", str(tmp_path), *arguments])
        run_findings.main()
        return capsys.readouterr().out

    run("a")
    assert "a: reproduced" in run("--list")
    assert "b: no result yet" in run("--list")
    run("--quick")
    assert not (tmp_path / "b.json").exists(), "quick results are not kept"
    run()
    run()
    assert measured == [("a", False), ("a", True), ("b", True), ("b", False)]
    with pytest.raises(SystemExit):
        run("c")


def test_findings_that_claims_test_name_claims() -> None:
    for name, texts in CLAIMS.items():
        assert name in claims.ALL
        assert texts.keys() - {"confirmed_by"} == {"title", "source"}
        assert texts.get("confirmed_by", "holds") in claims.VERDICTS


@pytest.mark.parametrize(
    ("verdict", "confirmed_by", "expected"),
    [
        ("holds", "holds", "reproduced"),
        ("holds only if it is small", "holds", "reproduced only if it is small"),
        ("holds only if the edge is there", "holds only if", "reproduced"),
        ("does not hold", "holds only if", "not reproduced"),
        ("inconclusive", "holds", "cannot be told here"),
    ],
)
def test_the_verdict_of_a_claim_is_one_on_the_finding(verdict: str, confirmed_by: str, expected: str) -> None:
    assert documentation().claim_verdict(verdict, confirmed_by) == expected


def documentation() -> ModuleType:
    """Return the extension that makes the page."""
    pytest.importorskip("sphinx", reason="the documentation needs Sphinx: pip install -e '.[docs]'")
    if (folder := str(ROOT / "docs" / "_ext")) not in sys.path:
        sys.path.insert(0, folder)
    return import_module("findings_docs")


def test_the_page_has_every_finding_and_every_claim(tmp_path: Path) -> None:
    findings_docs = documentation()
    table, details = findings_docs.verdict_table(), findings_docs.details()
    for name, finding in ALL.items():
        assert f"](#{name})" in table
        assert f"({name})=\n" in details
        record = records.load(name)
        has_figure = finding.draw is not None and record is not None
        assert ("<svg" in findings_docs.section(finding, record)) is has_figure
    assert findings_docs.MISSING in findings_docs.verdict_table(tmp_path), "no results in this folder"
    assert all(f"claims.html#claim-{claim}" in table for claim in CLAIMS)


def test_ranks_are_compared_by_means() -> None:
    final = {"a": [3.0, 3.2, 2.8, 3.1], "b": [2.0, 2.1, 1.9, 2.2], "c": [1.0, 1.1, 0.9, 1.2]}
    opposite = {name: [-x for x in values] for name, values in final.items()}
    assert rank_correlation(final, final) == pytest.approx(1)
    assert rank_correlation(opposite, final) == pytest.approx(-1)
    assert split_correlation(final, 2) == pytest.approx(1), "seeds agree"
    assert split_correlation({**final, "a": [0.0, 0.0, 9.0, 9.0]}, 2) == pytest.approx(-1 / 3), "a is last or first"
    assert is_reversed(opposite, final, "a", "b")
    assert not is_reversed(final, final, "a", "b")


def test_the_second_moment_has_the_same_half_life_in_examples_at_each_batch_size() -> None:
    for size in (1, 4, 16):
        assert beta2(size) ** (HALF_LIFE / size) == pytest.approx(0.5)


def test_tuning_leaves_the_first_range_and_an_average_is_evaluated() -> None:
    task = digits.change(epochs=1)
    arm, lr = tune(task, [Arm(adamw, 1e-6, 1e-5)], 1, 6)
    assert lr > 1e-4, "the first range is much too low"
    averaged = Arm(ema(adamw, decay=0.9, warmup=False), lr, lr)
    plain, other = train(task, [(arm, lr), (averaged, lr)], 2)
    assert [o.test_loss for o in plain] != [o.test_loss for o in other]
    assert [o.start for o in plain] == [o.start for o in other], "same weights and batches"
