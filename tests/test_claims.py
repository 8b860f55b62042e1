"""Claims are experiments: what was said beforehand, what was found, and that they can find the opposite."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from gradprix import claims
from gradprix.claims import _acceleration as acceleration
from gradprix.claims import _adadelta as adadelta
from gradprix.claims import _adagrad as adagrad
from gradprix.claims import _adam_identities as adam_as
from gradprix.claims import _adam_parts as adam_parts
from gradprix.claims import _adaptive as adaptive
from gradprix.claims import _batches as batches
from gradprix.claims import _condition_number as speed
from gradprix.claims import _descent as lower
from gradprix.claims import _stability_edge as edge
from gradprix.claims._claim import Claim, Finding, Measured, Result, exact, mean, median
from gradprix.cli import app
from gradprix.rules import adagrad as adagrad_rule
from gradprix.rules import adamw, nadam, rmsprop, sgd

DOCS = Path(__file__).parents[1] / "docs"
MINE = [claim.id for claim in claims.ALL.values() if claim.on == "landscapes"]


@pytest.fixture(scope="module")
def quick() -> dict[str, dict[str, Any]]:
    """Every claim on landscapes, tested quickly, once for all tests."""
    return {result.claim.id: result.to_dict() for result in claims.run(MINE, quick=True)}


def numbers(text: str) -> Iterator[tuple[float, float]]:
    """The numbers in a text, each with half of the last digit that is written."""
    pattern = r"(?<![\w.])([−-]?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(e[−-]?\d+)?(\s?%)?"
    for sign, whole, part, power, percent in re.findall(pattern, text):
        scale = float("1" + power.replace("−", "-")) * (0.01 if percent else 1)
        value = float(f"{whole.replace(',', '')}{part}") * scale * (-1 if sign else 1)
        yield value, 0.5 * 10 ** -max(len(part) - 1, 0) * scale


def unmeasured(record: Mapping[str, Any]) -> list[float]:
    """Numbers in a claim's sentence that were neither measured nor fixed beforehand."""
    fixed = " ".join([record["statement"], record["prediction"], record["decides"]])
    fixed += " ".join(each["what"] for each in record["measured"])
    known = [value for value, _ in numbers(fixed)]
    for each in record["measured"]:
        known += [each["effect"], each["n"], *each["ci95"]]
    allowed = [abs(value) for value in known if value is not None]
    return [
        value
        for value, half in numbers(record["says"])
        if not any(abs(abs(value) - other) <= 1.001 * half for other in allowed)
    ]


def test_every_claim_says_beforehand_what_would_decide() -> None:
    modules = [import_module(f"{claims.__name__}.{module.name}") for module in iter_modules(claims.__path__)]
    found = [claim for module in modules for claim in getattr(module, "CLAIMS", ())]

    assert len({claim.id for claim in found}) == len(found) == len(claims.ALL)
    for claim in found:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", claim.id)
        assert claim.on in ("landscapes", "networks", "suite")
        for text in (claim.account, claim.prediction, claim.decides):
            assert text.endswith((".", "?")), claim.id
        assert re.search(r"\b[Hh]olds", claim.decides), f"{claim.id} does not say when it holds"
    assert set(claims.ORDER) == set(claims.ALL), "each has its place in the account"


@pytest.mark.parametrize("name", MINE)
def test_a_quick_run_finds_something_and_says_only_what_it_measured(
    name: str, quick: dict[str, dict[str, Any]]
) -> None:
    record = quick[name]

    assert record["verdict"].startswith(claims.VERDICTS)
    assert record["measured"]
    for each in record["measured"]:
        assert each["ci95"][0] <= each["effect"] <= each["ci95"][1], each["what"]
        assert each["n"] >= 1
    assert unmeasured(record) == []


def test_a_number_that_was_not_measured_is_found_out() -> None:
    claim = Claim("a-b", "About 3.", "x.", "Holds at 5 %.", lambda quick: None, "landscapes")  # type: ignore[arg-type]
    found = Finding(
        "holds",
        "It is 0.52 (0.49 to 0.55) of 3, at 5 %, not 0.53, 1,200 or 7e-14.",
        (Measured("", 0.518, (0.49, 0.55), 9),),
    )

    assert unmeasured(Result(claim, found).to_dict()) == [0.53, 1200, 7e-14]


def near(effect: float, half: float = 0.01) -> Measured:
    return Measured("made up", effect, (effect - half, effect + half), 10)


FEW = exact("made up", 0.0)
LATE = [exact("made up", steps) for steps in (5_000, 50_000, 500_000)]
# What each rule of decision says to numbers that were made up, or measured on another rule than the claim's.
PLANTED = {
    "steps of RMSprop do not shrink": (lambda: adagrad.judged_shrinks(*adagrad.root_t(rmsprop, 100)), "does not hold"),
    "AdamW shrinks weights": (
        lambda: adadelta.judged_decays(exact("", adadelta.remaining_share(adamw)), FEW, FEW),
        "holds",
    ),
    "AdaGrad's rate does not last": (
        lambda: adadelta.judged_keeps(exact("", adadelta.lasting(adagrad_rule)), FEW, FEW),
        "does not hold",
    ),
    "a first step as long as Adam's is not tiny": (
        lambda: adadelta.judged_first(near(0.5), exact("", 1.0), *[FEW] * 4),
        "does not hold",
    ),
    "a tiny one is": (lambda: adadelta.judged_first(near(0.02), exact("", 0.01), *[FEW] * 4), "holds"),
    "another edge": (lambda: edge.judged_overshoot(near(2.3), exact("", 0.3), near(0), near(1), FEW), "not settled"),
    "no jumps below the edge": (
        lambda: edge.judged_overshoot(near(2), exact("", 0.0), near(0), near(0), FEW),
        "does not hold",
    ),
    "descent that stops early is stuck": (lambda: edge.judged_stuck(exact("", 1e-3), near(1)), "holds"),
    "a floor that does not follow the rate": (lambda: edge.judged_stuck(exact("", 0.0), near(0.5)), "not settled"),
    "momentum that needs κ": (lambda: speed.judged(near(1.0), near(1.0)), "does not hold"),
    "a look-ahead that does not brake": (lambda: acceleration.judged_brakes((near(1.0),) * 6), "does not hold"),
    "one that always does": (lambda: acceleration.judged_brakes((near(0.5),) * 6), "holds"),
    "no slower and no finer": (lambda: acceleration.judged_slows(near(1.0), near(1.0)), "does not hold"),
    "slower alone": (lambda: acceleration.judged_slows(near(0.5), near(1.0)), "holds only if"),
    "rates that grow with gradients": (lambda: adaptive.judged([near(0.5)] * 5, [near(0.5)] * 6), "holds"),
    "AdaGrad wherever a ravine lies": (lambda: adagrad.judged_adapts(near(5), near(5)), "holds"),
    "AdaGrad no better": (lambda: adagrad.judged_adapts(near(0), near(0)), "does not hold"),
    "rare features learned": (lambda: adagrad.judged_rare(near(0.1), near(0.1)), "holds"),
    "AdaGrad always behind": (lambda: adagrad.judged_stalls(*[near(3)] * 6), "holds"),
    "AdaGrad never behind": (lambda: adagrad.judged_stalls(*[near(0)] * 6), "does not hold"),
    "Adam as AdaDelta": (lambda: adam_as.judged_parts(near(0.5), exact("", 0.0), FEW), "holds"),
    "Adam as neither": (lambda: adam_as.judged_parts(exact("", 0.1), near(0.5), FEW), "not settled"),
    "a huge ε that leaves something": (lambda: adam_as.judged_momentum(exact("", 0.1), FEW, FEW), "does not hold"),
    "a correction that lasts": (lambda: adam_parts.judged_bias(LATE, FEW, FEW, [FEW]), "does not hold"),
    "one that is over at once": (lambda: adam_parts.judged_bias([FEW] * 3, FEW, FEW, [FEW]), "holds"),
    "decay that no scale changes": (lambda: adam_parts.judged_decay(near(0), near(0), *[FEW] * 4), "does not hold"),
    "noise as 1/√b": (lambda: batches.judged_falls(near(-0.5), [near(2)] * 3, FEW), "does not hold"),
    "mini-batches behind": (lambda: batches.judged_between(near(0), near(-1), near(1), near(0), FEW), "does not hold"),
    "a pair that rises": (lambda: lower.judged([-1.0, 0.1], [-1.0, -1.0], 2), "does not hold"),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_truth_or_falsity_is_called_so(planted: str) -> None:
    judge, verdict = PLANTED[planted]

    assert judge().verdict == verdict


def test_a_look_ahead_is_seen_in_a_rule_and_in_what_it_does() -> None:
    weights = [exact("", adam_parts.newest(rule, 3, **options)[0]) for rule, options in LOOKING]
    seen = [exact("", adam_parts.sees_the_gradient(rule, **options)) for rule, options in LOOKING]

    assert [m.effect for m in seen] == [1, 0, 1, 0, 1]
    assert adam_parts.judged_acceleration(weights, seen, [FEW, FEW]).verdict == "holds", "Nadam in AdaMax's place"


AHEAD = {"momentum": 0.9, "nesterov": True}
LOOKING: list[tuple[Any, dict[str, Any]]] = [
    (nadam, {"momentum_decay": 1e6}),
    (sgd, {"momentum": 0.9}),
    (nadam, {"momentum_decay": 1e6}),
    (sgd, {"momentum": 0.9}),
    (sgd, AHEAD),
]


def test_intervals_cover_what_they_should() -> None:
    generator = torch.Generator().manual_seed(0)
    hits = {"mean": 0, "median": 0}
    for _ in range(300):
        drawn = torch.randn(20, generator=generator).tolist()
        for kind, made in (("mean", mean("", drawn)), ("median", median("", drawn, 300))):
            hits[kind] += made.ci95[0] <= 0 <= made.ci95[1]

    assert hits["mean"] / 300 == pytest.approx(0.95, abs=0.035)
    assert hits["median"] / 300 == pytest.approx(0.95, abs=0.05)


def test_the_command_prints_json_and_nothing_else() -> None:
    done = CliRunner().invoke(
        app, ["claims", "adadelta-decays-weights", "adagrad-shrinks-as-root-t", "--quick", "--json"]
    )

    assert done.exit_code == 0, done.output
    records = json.loads(done.stdout)
    assert [record["id"] for record in records] == ["adadelta-decays-weights", "adagrad-shrinks-as-root-t"]
    for record in records:
        assert {"id", "statement", "verdict", "effect", "ci95", "n"} <= record.keys()
        assert record["verdict"].startswith(claims.VERDICTS)
        low, high = record["ci95"]
        assert low <= record["effect"] <= high


def test_one_claim_is_shown_with_all_there_is_to_know() -> None:
    done = CliRunner().invoke(app, ["claims", "adagrad-shrinks-as-root-t", "--quick"])
    claim = claims.ALL["adagrad-shrinks-as-root-t"]

    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    for text in (claim.account, claim.prediction, claim.decides, "✓ holds", "exponent of t in its length", "−0.5"):
        assert " ".join(text.split()) in shown
    assert "Again: gradprix claims adagrad-shrinks-as-root-t --quick" in shown


def test_all_are_shown_a_row_each_with_verdicts_counted(quick: dict[str, dict[str, Any]]) -> None:
    from gradprix.cli import _claims
    from gradprix.show.terminal import console

    with (shown := console()).capture() as capture:
        shown.print(_claims.summary(list(quick.values())))
    text = capture.get()
    for name, record in quick.items():
        assert name in text
        assert record["says"][:40] in text
    count = sum(record["verdict"] == "does not hold" for record in quick.values())
    assert f"{count} do not hold" in text


def test_they_can_be_listed_without_being_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "run", lambda *_: pytest.fail("it was tested"))
    done = CliRunner().invoke(app, ["claims", "--list"])

    assert done.exit_code == 0
    assert all(name in done.stdout for name in claims.ALL)


def test_an_unknown_id_is_one_line_with_the_nearest() -> None:
    done = CliRunner().invoke(app, ["claims", "adagrad-stals"])

    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "no claim is called 'adagrad-stals'. Did you mean adagrad-stalls" in done.stderr


def test_a_claim_about_many_tasks_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(quick: bool) -> Finding:
        raise ValueError("no suite is kept")

    waiting = Claim("a-b", "x.", "x.", "Holds.", run, "suite")
    monkeypatch.setitem(claims.ALL, "a-b", waiting)
    (result,) = claims.run(["a-b"])

    assert result.finding.verdict == "not settled"
    assert "no suite is kept" in result.finding.says
    assert result.to_dict()["effect"] is None


def test_the_kept_run_has_every_claim_and_says_only_what_it_measured() -> None:
    kept = claims.committed()

    assert [record["id"] for record in kept["claims"]] == list(claims.ALL)
    for record in kept["claims"]:
        claim = claims.ALL[record["id"]]
        assert (record["statement"], record["prediction"]) == (claim.account, claim.prediction)
        assert record["decides"] == claim.decides, f"{claim.id} was decided by another rule: run studies/claims.py"
        assert unmeasured(record) == [], claim.id
    assert {"command", "machine", "versions", "seconds"} <= kept.keys()


def test_the_page_says_what_the_kept_run_found() -> None:
    pytest.importorskip("sphinx", reason="the documentation needs Sphinx: pip install -e '.[docs]'")
    sys.path.insert(0, str(DOCS / "_ext"))
    import gradprix_docs as made

    page, table = (DOCS / "claims.md").read_text(), made.claims_table()
    assert "```{measured} claims\n" in page
    rows = [line for line in table.splitlines() if "`gradprix claims " in line]
    kept = claims.committed()["claims"]
    assert len(rows) == len(kept)
    for row, record in zip(rows, kept, strict=True):
        assert f"`gradprix claims {record['id']}`" in row
        assert f"| **{record['verdict']}** |" in row
        assert record["statement"] in row
    assert all(f"### {record['id']}" in made.claims_in_full() for record in kept)
