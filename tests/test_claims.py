"""Claims are experiments: what was said beforehand, what was found, and that they can find the opposite."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gradprix import claims
from gradprix.claims import adadelta, adagrad, adam_parts, descent
from gradprix.claims.claim import CLAIMS, Claim, Result
from gradprix.claims.estimates import Measured, exact, mean, median, proportion, ratio_of_means
from gradprix.claims.registry import Conclusion
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


def test_every_claim_has_texts_and_an_experiment() -> None:
    assert set(CLAIMS.registered) == set(CLAIMS.texts)
    assert list(claims.ALL) == list(CLAIMS.texts)
    for claim in claims.ALL.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", claim.id)
        assert claim.on in ("landscapes", "networks", "suite")
        for text in (claim.statement, claim.prediction, claim.decides):
            assert text.endswith((".", "?")), claim.id
            assert "{" not in text
        assert re.search(r"\b[Hh]olds", claim.decides), f"{claim.id} does not say when it holds"
        assert "oes not hold" in claim.decides or "else" in claim.decides
        assert claim.on == "suite" or claim.measured, "quantities have descriptions"


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


def claim_with(**changes: Any) -> Claim:
    texts = {"statement": "About 3.", "prediction": "x.", "decides": "Holds at 5 %.", "on": "landscapes"}
    functions = {"measure": lambda quick: {}, "decide": lambda m: "holds", "say": lambda m: ""}
    return Claim(**{"id": "a-b", **texts, **functions, **changes})


def test_a_number_that_was_not_measured_is_found_out() -> None:
    says = "It is 0.52 (0.49 to 0.55) of 3, at 5 %, not 0.53, 1,200 or 7e-14."
    finding = Conclusion("holds", says, (Measured("", 0.518, (0.49, 0.55), 9),))

    assert unmeasured(Result(claim_with(), finding).to_dict()) == [0.53, 1200, 7e-14]


def measured(effect: float, half: float = 0.01) -> Measured:
    return Measured("", effect, (effect - half, effect + half), 10)


def verdict(name: str, quantities: Mapping[str, Any]) -> str:
    decision = claims.ALL[name].decide(quantities)
    return decision if isinstance(decision, str) else decision[0]


ZERO = exact(0.0)
ARMS = ("tuned", "default", "noise")
# Verdicts from planted numbers, or from numbers measured on another rule than the claim's.
PLANTED: list[tuple[str, dict[str, Any], str]] = [
    ("adagrad-shrinks-as-root-t", {"deviation": exact(1e-12)}, "holds"),
    ("adadelta-decays-weights", {"adadelta": exact(1.0)}, "does not hold"),
    ("adadelta-keeps-going", {"adadelta": exact(1.0)}, "holds"),
    ("adadelta-first-steps-are-tiny", {"own": measured(0.5), "others": exact(1.0)}, "does not hold"),
    ("adadelta-first-steps-are-tiny", {"own": measured(0.02), "others": exact(0.01)}, "holds"),
    ("adadelta-first-steps-are-tiny", {"own": measured(0.02), "others": exact(1.0)}, "holds only if"),
    (
        "large-updates-overshoot",
        {"edge": measured(2.3), "worst": exact(0.3), "below": measured(0), "above": measured(1)},
        "inconclusive",
    ),
    (
        "large-updates-overshoot",
        {"edge": measured(2), "worst": ZERO, "below": measured(0), "above": measured(0)},
        "does not hold",
    ),
    ("gd-gets-stuck", {"worst": exact(1e-3), "slope": measured(1)}, "holds"),
    ("gd-gets-stuck", {"worst": ZERO, "slope": measured(0.5)}, "inconclusive"),
    ("momentum-needs-root-kappa", {"heavy": measured(1.0), "plain": measured(1.0)}, "does not hold"),
    ("momentum-needs-root-kappa", {"heavy": measured(0.5), "plain": measured(1.0)}, "holds"),
    ("look-ahead-brakes", {"equal": measured(1.0), "own": measured(1.0)}, "does not hold"),
    ("look-ahead-brakes", {"equal": measured(0.5), "own": measured(0.5)}, "holds"),
    ("look-ahead-brakes", {"equal": measured(0.5), "own": measured(1.0)}, "holds only if"),
    ("look-ahead-brakes", {"equal": measured(0.5), "own": measured(0.9)}, "inconclusive"),
    ("acceleration-slows-near-the-optimum", {"speed": measured(1.0), "loss": measured(1.0)}, "does not hold"),
    ("acceleration-slows-near-the-optimum", {"speed": measured(0.5), "loss": measured(1.0)}, "holds only if"),
    ("acceleration-slows-near-the-optimum", {"speed": measured(0.5), "loss": measured(0.5)}, "holds only if"),
    ("adagrad-adapts-to-directions", {"aligned": measured(5), "rotated": measured(5)}, "holds"),
    ("adagrad-adapts-to-directions", {"aligned": measured(0), "rotated": measured(0)}, "does not hold"),
    ("adagrad-adapts-to-directions", {"aligned": measured(5), "rotated": measured(0)}, "holds only if"),
    ("adagrad-adapts-to-directions", {"aligned": measured(5), "rotated": measured(1)}, "inconclusive"),
    ("adagrad-learns-rare-features", {"ratio_1": measured(0.1), "ratio_64": measured(0.1)}, "holds"),
    ("adagrad-stalls", {f"sgd_{arm}": measured(3) for arm in ARMS}, "holds"),
    ("adagrad-stalls", {f"sgd_{arm}": measured(0) for arm in ARMS}, "does not hold"),
    ("adam-is-adadelta-plus-momentum", {"rmsprop": measured(0.5), "adadelta": ZERO}, "holds"),
    ("adam-is-adadelta-plus-momentum", {"rmsprop": exact(0.1), "adadelta": measured(0.5)}, "inconclusive"),
    ("adam-is-adadelta-plus-momentum", {"rmsprop": ZERO, "adadelta": measured(0.5)}, "does not hold"),
    ("adam-with-huge-eps-is-momentum", {"corrected": exact(0.1), "uncorrected": ZERO}, "does not hold"),
    (
        "bias-correction-matters-early",
        {"steps_10": exact(5_000), "steps_100": exact(50_000), "steps_1000": exact(500_000)},
        "does not hold",
    ),
    ("bias-correction-matters-early", {f"steps_{t}": ZERO for t in (10, 100, 1000)}, "holds"),
    ("adamw-decay-is-not-l2", {"coupled": measured(0), "decoupled": measured(0)}, "does not hold"),
    ("adamw-decay-is-not-l2", {"coupled": measured(-1), "decoupled": measured(0)}, "holds"),
    (
        "noise-falls-as-one-over-batch",
        {"slope": measured(-0.5), **{f"ratio_{b}": measured(2) for b in (1, 3, 10, 30, 100, 300, 900)}},
        "does not hold",
    ),
    (
        "noise-falls-as-one-over-batch",
        {"slope": measured(-1), **{f"ratio_{b}": measured(2) for b in (1, 3, 10, 30, 100, 300, 900)}},
        "inconclusive",
    ),
    (
        "mini-batch-sits-between",
        {"over_all": measured(-1), "one": measured(1), "mini": measured(0), "all": ZERO},
        "does not hold",
    ),
    (
        "mini-batch-sits-between",
        {"over_all": measured(1), "one": measured(2), "mini": measured(1), "all": ZERO},
        "holds",
    ),
    ("rules-lower-the-loss", {"tuned": proportion(1, 2)}, "does not hold"),
]


@pytest.mark.parametrize(("name", "quantities", "expected"), PLANTED)
def test_a_decision_rule_finds_planted_truths_and_falsehoods(
    name: str, quantities: dict[str, Any], expected: str
) -> None:
    assert verdict(name, quantities) == expected


def test_measurements_on_other_rules_give_the_opposite_verdict() -> None:
    assert verdict("adagrad-shrinks-as-root-t", adagrad.measure_root_t(True, rmsprop)) == "does not hold"
    assert verdict("adadelta-decays-weights", {"adadelta": exact(adadelta.remaining_share(adamw))}) == "holds"
    assert verdict("adadelta-keeps-going", {"adadelta": exact(adadelta.persistence(adagrad_rule))}) == "does not hold"
    assert verdict("rules-lower-the-loss", descent.summarize([-1.0, 0.1], [-1.0, -1.0], 2)) == "does not hold"


@pytest.mark.parametrize(("effect", "expected"), [(0.5, "holds"), (-0.5, "does not hold"), (0.1, "inconclusive")])
def test_learning_rates_that_grow_with_gradients_are_recognised(effect: float, expected: str) -> None:
    rules = ("AdaGrad", "RMSprop", "AdaDelta", "Adam", "AdaMax")
    assert verdict("adaptive-steps-follow-gradients", {name: measured(effect) for name in rules}) == expected
    mixed = {name: measured(effect if name == "Adam" else 0.0) for name in rules}
    assert verdict("adaptive-steps-follow-gradients", mixed) == (
        "holds only if" if expected == "holds" else "inconclusive"
    )


def test_a_look_ahead_is_seen_in_a_rule_and_in_its_steps() -> None:
    weights = [exact(adam_parts.newest_gradient_weight(rule, 3, **options)[0]) for rule, options in LOOKING]
    seen = [adam_parts.uses_newest_gradient(rule, **options) for rule, options in LOOKING]

    assert seen == [True, False, True, False, True]
    quantities = {**dict(zip(adam_parts.RULES, weights, strict=True)), "direct AdaMax": exact(seen[0])}
    assert verdict("adamax-adds-acceleration", quantities) == "holds", "Nadam in AdaMax's place"


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
        for kind, estimate in (("mean", mean(drawn)), ("median", median(drawn, 300))):
            hits[kind] += estimate.ci95[0] <= 0 <= estimate.ci95[1]

    assert hits["mean"] / 300 == pytest.approx(0.95, abs=0.035)
    assert hits["median"] / 300 == pytest.approx(0.95, abs=0.05)


def test_the_interval_of_a_ratio_of_means_covers_it() -> None:
    generator, hits = np.random.default_rng(0), 0
    for _ in range(400):
        below = 2 + 0.3 * generator.standard_normal(12)
        ratio = ratio_of_means(0.5 * below + 0.3 * generator.standard_normal(12), below)
        hits += ratio.ci95[0] <= 0.5 <= ratio.ci95[1]
    assert hits / 400 == pytest.approx(0.95, abs=0.03)
    assert ratio_of_means([1.0, 2.0], [2.0, 4.0]).ci95 == pytest.approx((0.5, 0.5))


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"claims": [{"verdict": "not settled"}, {"verdict": "holds"}]}))
    assert [record["verdict"] for record in claims.load_results(file)["claims"]] == ["inconclusive", "holds"]


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
    for text in (claim.statement, claim.prediction, claim.decides, "✓ holds", "exponent of t in its length", "−0.5"):
        assert " ".join(text.split()) in shown
    assert "gradprix claims adagrad-shrinks-as-root-t --quick" in shown


def test_all_are_shown_a_row_each_with_verdicts_counted(quick: dict[str, dict[str, Any]]) -> None:
    from gradprix.cli import _claims
    from gradprix.show.terminal import console

    with (shown := console()).capture() as capture:
        shown.print(_claims.summary(list(quick.values())))
    text = " ".join(capture.get().split())
    for name, record in quick.items():
        assert name in text
        assert record["says"][:40] in text
    count = sum(record["verdict"] == "does not hold" for record in quick.values())
    assert f"{count} do not hold" in text


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        (["does not hold"], "1 does not hold"),
        (["holds", "holds only if the step is small"], "1 holds, 1 holds only on a condition"),
        (["inconclusive", "holds", "holds"], "2 hold, 1 is inconclusive"),
    ],
)
def test_counts_agree_with_their_verbs(verdicts: list[str], text: str) -> None:
    assert claims.format_counts({"verdict": verdict} for verdict in verdicts) == text


def test_redirected_lines_end_without_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.padding import Padding

    from gradprix.show.terminal import console

    console().print(Padding("word " * 60, (0, 0, 0, 4)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    assert all(line == line.rstrip() for line in lines)


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
    def measure(quick: bool) -> dict[str, Any]:
        raise ValueError("there is no suite")

    monkeypatch.setitem(claims.ALL, "a-b", claim_with(measure=measure, on="suite"))
    (result,) = claims.run(["a-b"])

    assert result.conclusion.verdict == "inconclusive"
    assert "there is no suite" in result.conclusion.says
    assert result.to_dict()["effect"] is None


def test_the_committed_results_have_every_claim_and_say_only_what_was_measured() -> None:
    kept = claims.load_results()

    assert [record["id"] for record in kept["claims"]] == list(claims.ALL)
    for record in kept["claims"]:
        claim = claims.ALL[record["id"]]
        assert (record["statement"], record["prediction"]) == (claim.statement, claim.prediction)
        assert record["decides"] == claim.decides, f"{claim.id} was decided by another rule: run studies/claims.py"
        assert unmeasured(record) == [], claim.id
    assert {"command", "machine", "versions", "seconds"} <= kept.keys()


def test_the_page_of_the_documentation_has_the_cards_of_the_kept_run() -> None:
    pytest.importorskip("sphinx", reason="the documentation needs Sphinx: pip install -e '.[docs]'")
    sys.path.insert(0, str(DOCS / "_ext"))
    import claims_docs
    import study_docs

    page, kept = (DOCS / "claims.md").read_text(), claims.load_results()["claims"]
    assert "```{measured} claims\n" in page
    assert "```{claims}\n" in page
    assert study_docs.claims_made_by().startswith(f"{len(kept)} claims: ")
    cards = str(claims_docs.claim_cards())
    assert all(f'id="claim-{record["id"]}"' in cards for record in kept)
    assert cards.count('<article class="claim"') == len(kept)
