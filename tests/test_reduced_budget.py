"""Runs with fewer examples, at a quarter of the budget and in equal time; and the hyperparameters tuned with more."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from scipy import stats

import gradprix as gp
from gradprix.race import Local, Plan, entries, make_plan, run
from gradprix.race.record import BudgetSensitivity, EqualTime
from gradprix.race.reduced_budget import equal_time_trials, summarize_equal_time, summarize_quarter, time_ratios
from gradprix.race.run_records import failed_runs
from gradprix.stats.budget_sensitivity import DistanceChange, distance_changes
from gradprix.stats.recommendation import RecommendationReason
from gradprix.tasks import Metric, digits
from gradprix.tasks.schedules import count_steps, examples_a_pass, passes, schedule, shorten
from gradprix.text.answer import answer_lines
from gradprix.training import Trainer
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.tuner import TuningResult
from records import make_record
from untimed import Untimed

VALUES = {"adam": [0.97, 0.968, 0.972, 0.97, 0.969, 0.971], "momentum": [0.95, 0.952, 0.948, 0.95, 0.951, 0.949]}

TUNED = TuningResult((("lr", 0.01),), (), ())


@pytest.mark.parametrize("batch_size", [0, 1, 7, 32, 100, 1000])
@pytest.mark.parametrize("epochs", [0.4, 1, 3, 10])
@pytest.mark.parametrize("share", [0.03, 0.25, 0.6, 0.97])
def test_a_shortened_run_has_its_share_of_the_steps(epochs: float, share: float, batch_size: int) -> None:
    count = 1077
    short = shorten(epochs, share, count, batch_size)
    steps, full = count_steps(count, batch_size, short), count_steps(count, batch_size, epochs)
    assert abs(steps - share * full) <= passes(epochs * share), "each pass is rounded to full batches"
    each = examples_a_pass(count, short)
    whole = (count, examples_a_pass(count, epochs))
    assert each in whole or batch_size == 0 or each % batch_size == 0, "no small last batch of its own"
    assert each <= count


@pytest.mark.parametrize("size", [0, 2, 8, 9, 32, 700, 2000])
@pytest.mark.parametrize("count", [10, 97, 1077])
def test_a_shortened_run_is_never_longer_and_has_no_new_last_batch(count: int, size: int) -> None:
    for epochs in (0.4, 1, 2.5, 3, 10):
        for share in np.arange(0.01, 1, 0.01).tolist():
            short = shorten(epochs, share, count, size)
            each, full = examples_a_pass(count, short), examples_a_pass(count, epochs)
            assert short <= epochs
            assert passes(short) == passes(epochs * share)
            # Last batches of these have been tested before the race; batch norm fails on one of one example.
            assert each in (count, full) or size == 0 or each % size == 0


def test_integer_epochs_have_all_examples_in_each_pass() -> None:
    assert [examples_a_pass(count, epochs) for count in (1, 7, 50_000) for epochs in (1, 2, 3, 30)] == (
        [1] * 4 + [7] * 4 + [50_000] * 4
    )


def test_a_run_of_two_and_a_half_epochs_is_a_plain_loop_of_three_passes() -> None:
    epochs, lr, seed = shorten(10, 0.25, 1077, 32), 0.05, 3
    trial = Trial(gp.rules.sgd, gp.rules.sgd.values(lr=lr), seed, 32, epochs, "cosine", False)
    trainer = Trainer(digits, [trial])
    assert (trainer.epochs, trainer.examples) == (3, 896)
    outcome = trainer.run()[0]
    assert [seen for seen, *_ in outcome.curve] == [896, 1792, 2688]

    again = Trainer(digits, [trial])
    model = gp.tasks.rng.init_model(digits.model, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    factor, step = schedule("cosine", 84), 0
    for _ in range(3):
        for index in again.stack.data.shuffled_batches(32, 896):
            inputs, targets = digits.loaded.take(index[0])
            optimizer.param_groups[0]["lr"] = lr * factor(step)
            step += 1
            optimizer.zero_grad()
            digits.loss(model(inputs), targets).backward()
            optimizer.step()
    valid = digits.loaded.split(seed).valid
    with torch.no_grad():
        inputs, targets = digits.loaded.take(valid)
        loss = float(digits.loss(model(inputs), targets))
    assert step == 84
    assert outcome.valid_loss == pytest.approx(loss, rel=1e-4)


def test_changes_of_distances_are_those_of_welchs_test() -> None:
    rng = np.random.default_rng(0)
    shapes = {"a": (0.0, 1.0), "b": (-5.0, 3.0), "c": (-1.0, 1.0)}
    reduced, full = (
        {name: rng.normal(shift, size, n).tolist() for name, (shift, size) in shapes.items()} for n in (4, 16)
    )
    changes = distance_changes(reduced, full, "a", higher_is_better=True)
    assert changes["a"] == DistanceChange(reduced=0.0, full=0.0, ci95=(0.0, 0.0))
    distances = {name: [np.subtract(v["a"], v[name]) for v in (reduced, full)] for name in ("b", "c")}
    pooled = np.mean([short.var(ddof=1) for short, _ in distances.values()])
    for name, (short, whole) in distances.items():
        change = changes[name]
        assert (change.reduced, change.full) == pytest.approx((short.mean(), whole.mean()))
        errors = max(short.var(ddof=1), pooled) / 4, whole.var(ddof=1) / 16
        freedom = sum(errors) ** 2 / (errors[0] ** 2 / 6 + errors[1] ** 2 / 15)
        reach = stats.t.ppf(1 - 0.05 / 8, freedom) * math.sqrt(sum(errors))
        assert change.ci95 == pytest.approx((short.mean() - whole.mean() - reach, short.mean() - whole.mean() + reach))
    negated = [{k: [-x for x in v] for k, v in values.items()} for values in (reduced, full)]
    assert distance_changes(*negated, "a", higher_is_better=False) == changes


@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_equal_entries_are_seldom_named(spread: float) -> None:
    rng, races, named = np.random.default_rng(0), 400, 0
    for _ in range(races):
        sizes = np.exp(spread * rng.standard_normal((10, 1)))
        reduced, full = (
            dict(zip("abcdefghij", (sizes * rng.standard_normal((10, seeds))).tolist(), strict=True))
            for seeds in (4, 32)
        )
        best = max(full, key=lambda name: np.mean(full[name]))
        changes = distance_changes(reduced, full, best, higher_is_better=True)
        named += any(change.exceeds(0.0) for change in changes.values())
    assert named / races <= 0.05


def test_a_change_counts_if_it_is_significant_and_beyond_the_margin() -> None:
    def change(reduced: float, low: float, high: float) -> DistanceChange:
        return DistanceChange(reduced=reduced, full=0.0, ci95=(low, high))

    assert change(0.02, 0.01, 0.03).exceeds(0.01)
    assert not change(0.02, -0.01, 0.05).exceeds(0.01), "by chance"
    assert not change(0.02, 0.01, 0.03).exceeds(0.03), "within the margin"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> gp.race.Result:
    settings: dict[str, Any] = {"epochs": 2, "trials": 4, "seeds": 6, "out": tmp_path_factory.mktemp("race")}
    return gp.race("digits", "adam,minibatch", engine=Untimed(1), **settings)


def test_a_race_reruns_its_entries_with_a_quarter_of_the_examples(small: gp.race.Result) -> None:
    record = small.record
    result = record.budget_sensitivity
    assert result is not None
    assert (result.share, result.seeds) == (0.25, 4)
    assert {name: len(values) for name, values in result.values.items()} == {"adam": 4, "minibatch": 4}
    plan = make_plan("digits", "adam,minibatch", epochs=2, trials=4, seeds=6)
    trial = plan.final_trial(plan.entries[0], {"lr": record.entry("adam").tuned["lr"]}, 2, 0.25)
    outcome = next(iter(Local(1).run(plan.task, [trial], lambda share: None)))[1][0]
    assert result.values["adam"][2] == outcome.test_metric, "the run can be repeated by itself"
    assert record.cost.trials == 2 * (4 + 6 + 4) == plan.runs
    assert record.cost.examples == 2 * ((4 + 6) * 2 * 1077 + 4 * 544)
    assert small.to_dict()["budget_sensitivity"]["values"]["adam"] == list(result.values["adam"])
    assert gp.load(small.folder).record.budget_sensitivity == result


@pytest.mark.parametrize(("epochs", "batch_size", "seeds"), [(1, 32, 4), (1, 64, 0), (2, 64, 4), (0.2, 32, 0)])
def test_runs_of_a_few_steps_are_not_shortened(epochs: float, batch_size: int, seeds: int) -> None:
    plan = make_plan(digits.change(epochs=epochs, batch_size=batch_size), "adam,adamw")
    assert set(plan.quarter_runs.values()) == ({seeds} if seeds else set())
    assert sum(phase.name == "quarter" for phase in plan.phases) == (seeds > 0)
    assert plan.runs == sum(sum(phase.runs.values()) for phase in plan.phases)


def sensitive(values: dict[str, list[float]] = VALUES, /, **changes: tuple[float, float, float, float]) -> str:
    record = make_record(VALUES)
    each = {name: DistanceChange(reduced=r, full=f, ci95=(low, high)) for name, (r, f, low, high) in changes.items()}
    result = BudgetSensitivity(share=0.25, seeds=4, values=values, reference="adam", changes=each)
    return "\n".join(answer_lines(replace(record, budget_sensitivity=result)))


def test_the_answer_names_entries_that_gain_or_lose_by_more_examples() -> None:
    text = sensitive(minibatch=(-0.02, 0.01, -0.04, -0.02), momentum=(0.109, 0.007, 0.08, 0.12))
    assert (
        "With more examples, momentum (10.9 points behind adam with a quarter of them, 0.7 points behind with all) "
        "gains ground: a longer run may favour it." in text
    )
    assert (
        "With more examples, minibatch (2.0 points ahead of adam with a quarter of them, 1.0 points behind with all) "
        "loses ground: expect less of it in a longer run." in text
    )
    assert "quarter" not in sensitive(adam=(0.0, 0.0, 0.0, 0.0), momentum=(0.02, 0.0, -0.01, 0.05))


def test_there_is_advice_only_where_one_budget_misleads_about_the_other() -> None:
    assert "quarter" not in sensitive(momentum=(0.4, 0.3, 0.05, 0.15)), "far behind at both"
    untrained = {name: [0.1, 0.102, 0.101, 0.099] for name in VALUES}
    assert "quarter" not in sensitive(untrained, momentum=(0.0, 0.3, -0.35, -0.25)), "nothing is learned in a quarter"


def test_slow_entries_are_compared_in_equal_time(tmp_path: Any) -> None:
    plan = Plan(digits.change(epochs=2), tuple(entries("adam,momentum,minibatch")), trials=4, seeds=6)
    steps = {"adam": 3e-3, "momentum": 1e-3, "minibatch": 1.2e-3}

    class Timed(Local):
        """Executor on which the steps of Adam take three times as long."""

        def call(self, function: Any, *args: Any) -> Any:
            return list(steps.values()) if function.__name__ == "seconds_of_steps" else super().call(function, *args)

    result = run(plan, tmp_path, Timed(1))
    equal = result.record.equal_time
    assert equal is not None
    leaders = [name for name in steps if name in result.record.verdict.leaders]
    fastest = min(steps[name] for name in leaders)
    assert equal.ratios == {name: pytest.approx(steps[name] / fastest) for name in steps}
    assert equal.slow == [name for name in steps if steps[name] / fastest > 1.25]
    assert equal.values["minibatch"] == result.record.entry("minibatch").final.values, "full runs count as they are"
    assert len(equal.values["adam"]) == 6
    assert equal.values["adam"] != result.record.entry("adam").final.values
    assert "In equal time" in result.text
    assert gp.load(tmp_path).record.equal_time == equal
    again = run(plan, tmp_path, Timed(1))
    assert again.record.equal_time == equal
    assert again.reused == again.record.cost.trials, "nothing is trained again"


def test_the_examples_of_a_slow_entry_shrink_by_its_time() -> None:
    plan = Plan(digits.change(epochs=10), tuple(entries("adam,momentum")))
    tuned = dict.fromkeys(("adam", "momentum"), TUNED)
    trials = equal_time_trials(plan, tuned, {"adam": 2.0, "momentum": 1.0}, 32)
    assert set(trials) == {"adam"}
    assert len(trials["adam"]) == 8
    assert plan.examples_of(trials["adam"][0]) == pytest.approx(plan.examples / 2, rel=0.02)


def test_runs_of_a_few_steps_are_not_compared_in_equal_time() -> None:
    plan = Plan(digits.change(epochs=1), tuple(entries("adam,momentum")))
    tuned = dict.fromkeys(("adam", "momentum"), TUNED)
    assert plan.steps_of(equal_time_trials(plan, tuned, {"adam": 3.0, "momentum": 1.0}, 8)["adam"][0]) == 11
    assert equal_time_trials(plan, tuned, {"adam": 6.0, "momentum": 1.0}, 8) == {}


def test_equal_steps_need_no_comparison_in_equal_time() -> None:
    plan = Plan(digits.change(epochs=2), tuple(entries("adam,momentum")), trials=4, seeds=6)
    tuned = dict.fromkeys(("adam", "momentum"), TUNED)

    class Leaders:
        verdict = make_record(VALUES).verdict

    for steps in ({"adam": 1.2e-3, "momentum": 1e-3}, {"adam": None, "momentum": 1e-3}):
        assert time_ratios(plan, tuned, Leaders, steps) is None  # type: ignore[arg-type]


def outcome(metric: float | None, error: str | None = None) -> Outcome:
    return Outcome([(1, 0.0, 0.0, 0.0)], 0.0, metric, 1 if metric is None else None, error=error)


def with_outcomes(values: dict[str, list[float | None]]) -> dict[str, list[tuple[Trial, Outcome]]]:
    trial = Trial(gp.rules.sgd, gp.rules.sgd.values(lr=0.1), 0, 32, 10, "cosine", True)
    return {name: [(trial, outcome(value)) for value in each] for name, each in values.items()}


def analysis_of(recommended: str, chance_level: float = 0.1) -> Any:
    """Return what the comparisons read of an analysis."""
    return SimpleNamespace(
        recommended=recommended, chance_level=chance_level, margin=0.005, tuning_deviation=0.0, values=VALUES
    )


def equal_time_of(
    recommended: str, finals: dict[str, list[float | None]], **shortened: list[float | None]
) -> EqualTime:
    plan = Plan(digits, tuple(entries("adam,momentum,minibatch")), trials=4, seeds=6)
    ratios = {name: 2.0 if name in shortened else 1.0 for name in finals}
    runs = with_outcomes(shortened)
    return summarize_equal_time(plan, ratios, runs, with_outcomes(finals), analysis_of(recommended))


def test_a_recommendation_of_full_runs_stays_in_equal_time() -> None:
    finals: dict[str, list[float | None]] = {
        "adam": [0.97, 0.95, 0.98, 0.94, 0.97, 0.96],
        "momentum": [0.96, 0.97, 0.95, 0.98, 0.96, 0.98],
        "minibatch": [0.9, 0.91, 0.9, 0.89, 0.9, 0.9],
    }
    result = equal_time_of("adam", finals, minibatch=[0.8, 0.81, 0.8, 0.79, 0.8, 0.8])
    assert result.bounds["adam"] > 0.005
    assert result.recommended == "adam", "by chance, momentum has the better mean under fewer seeds"
    assert equal_time_of("adam", finals, adam=[0.9, 0.91, 0.9, 0.89, 0.9, 0.9]).recommended == "momentum"


def test_an_entry_that_diverges_is_not_recommended_in_equal_time() -> None:
    finals: dict[str, list[float | None]] = {
        "adam": [0.9, 0.91, 0.9, 0.89, 0.9, 0.9],
        "momentum": [0.97, 0.97, 0.97, 0.97, 0.97, 0.97, None],
        "minibatch": [0.8, 0.81, 0.8, 0.79, 0.8, 0.8],
    }
    result = equal_time_of("adam", finals, adam=[0.88, 0.88, 0.88, 0.87, 0.88, 0.88])
    assert result.recommended == "adam", "momentum diverged with a later seed"
    assert result.bounds["adam"] == 0, "entries that do not diverge are compared with each other"
    unstable = equal_time_of("adam", finals, adam=[0.88, 0.88, 0.88, 0.87, None, 0.88])
    assert unstable.recommended == "minibatch"


def test_a_diverged_short_run_is_not_better_than_the_others() -> None:
    metric = Metric("loss", lambda outputs, targets: 0.0, higher_is_better=False, percent=False, margin=0.01)
    plan: Any = SimpleNamespace(task=SimpleNamespace(metric=metric, baseline=None))
    short = with_outcomes({"adam": [1.0, 1.1, 1.2, 1.3], "momentum": [None] * 4})
    result = summarize_quarter(plan, short, analysis_of("adam", chance_level=0.3))
    assert result is not None
    assert result.values["momentum"] == (1.3,) * 4
    assert result.changes["adam"].reduced == 0


def test_failures_of_short_runs_are_reported() -> None:
    trial = Trial(gp.rules.sgd, gp.rules.sgd.values(lr=0.1), 3, 32, 1, "cosine", True)
    failed = failed_runs({}, {"sgd": [(trial, outcome(0.9))]}, {"sgd": [(trial, outcome(None, "no memory"))]})
    assert [(run.entry, run.seed, run.error) for run in failed] == [("sgd", 3, "no memory")]


def equal_time(bound: float = 0.0, **ratios: float) -> EqualTime:
    """Return a comparison in equal time that recommends momentum."""
    return EqualTime(
        seeds=8,
        ratios=ratios,
        shares={name: 1 / ratio for name, ratio in ratios.items()},
        values=VALUES,
        bounds={**dict.fromkeys(ratios, 0.03), "momentum": bound},
        recommended="momentum",
    )


def test_nothing_is_advised_if_every_final_run_diverged() -> None:
    record = make_record({name: [0.1] * 6 for name in VALUES})
    equal = equal_time(adam=2.0, momentum=1.0)
    change = DistanceChange(reduced=0.3, full=0.0, ci95=(0.2, 0.4))
    quarter = BudgetSensitivity(share=0.25, seeds=4, values=VALUES, reference="momentum", changes={"adam": change})
    text = "\n".join(answer_lines(replace(record, equal_time=equal, budget_sensitivity=quarter)))
    assert "every final run" in text
    assert "use adam" not in text
    assert "longer run" not in text


def test_several_slow_entries_are_plural() -> None:
    result = equal_time(adam=2.3, momentum=1.0, muon=3.0)
    text = "\n".join(answer_lines(replace(make_record(VALUES), equal_time=result)))
    assert "Runs of muon and adam take 2.3 to 3 times as long as one of momentum." in text


def test_the_answer_in_equal_time() -> None:
    record = make_record(VALUES, recommended=("adam", RecommendationReason.BEST_MEAN))
    text = "\n".join(answer_lines(replace(record, equal_time=equal_time(adam=2.3, momentum=1.0))))
    assert "A run of adam takes 2.3 times as long as one of momentum." in text
    assert "In equal time, with fewer examples in its runs, use momentum: it is not behind the others" in text
    uncertain = "\n".join(answer_lines(replace(record, equal_time=equal_time(0.02, adam=2.3, momentum=1.0))))
    assert (
        "it is at most 2.0 points behind the best (95\N{NO-BREAK SPACE}%, 8 seeds), more than the margin." in uncertain
    )


@pytest.mark.parametrize(
    ("trials", "tuned"),
    [
        (6, {"adamw": ["lr"], "momentum": ["lr"], "minibatch": ["lr"]}),
        (26, {"adamw": ["lr", "weight_decay"], "momentum": ["lr", "momentum"], "minibatch": ["lr", "weight_decay"]}),
        (
            40,
            {
                "adamw": ["lr", "weight_decay", "beta2"],
                "momentum": ["lr", "momentum", "weight_decay"],
                "minibatch": ["lr", "weight_decay"],
            },
        ),
    ],
)
def test_recommended_tuning_grows_with_the_trials(trials: int, tuned: dict[str, list[str]]) -> None:
    plan = make_plan("digits", "adamw,momentum,minibatch", tune="recommended", trials=trials)
    assert {entry.name: list(entry.space) for entry in plan.entries} == tuned
    assert {sum(phase.trials for phase in plan.tuner(entry).phases) for entry in plan.entries} == {trials}


def test_every_rule_names_hyperparameters_that_it_can_tune() -> None:
    for rule in gp.rules.ALL.values():
        assert rule.tuned
        assert set(rule.tuned) <= set(rule.axes) - {"lr"}, rule.name
    assert gp.Entry("torch's", torch.optim.AdamW).recommended_tuning(26) == ["weight_decay"]
    assert gp.Entry("torch's", torch.optim.Rprop).recommended_tuning(26) == []
    for name, expected in (("SGD", ["momentum"]), ("Adam", ["beta1"]), ("NAdam", ["beta1"])):
        fixed = {"momentum": 0.9} if name == "SGD" else {}
        for home in (torch.optim, gp.optim):
            entry = gp.Entry(name, getattr(home, name), fixed)
            assert entry.recommended_tuning(26) == expected, "equal optimizers are tuned alike"


@pytest.mark.parametrize("tuned", ["momentum", ("nope",), ("lr",)])
def test_a_rule_can_only_recommend_its_own_hyperparameters(tuned: Any) -> None:
    with pytest.raises(TypeError, match="tuned = "):
        gp.rule("a paper", relation="SGD.", space={"lr": gp.log(1e-3, 1)}, tuned=tuned, lr=1e-2, momentum=0.9)


def test_recommended_tuning_names_nothing_else() -> None:
    with pytest.raises(ValueError, match="Give it alone"):
        make_plan("digits", "adamw,momentum", tune="recommended,batch_size")


def test_tuned_batch_sizes_leave_enough_steps_for_a_quarter() -> None:
    assert make_plan(digits.change(epochs=2), "adam,adamw").quarter_runs == {"adam": 4, "adamw": 4}
    assert make_plan(digits.change(epochs=2), "adam,adamw", tune="batch_size", trials=12).quarter_runs == {}


def test_recommended_tuning_keeps_what_a_user_fixed() -> None:
    fixed = gp.Entry("fixed", gp.rules.adamw, {"weight_decay": 0.3})
    own = gp.Entry("own", gp.rules.adamw, space={"lr": gp.log(1e-4, 1e-1), "eps": gp.log(1e-8, 1e-2)})
    plan = make_plan("digits", [fixed, own, "momentum"], tune="recommended", trials=26)
    spaces = {entry.name: list(entry.space) for entry in plan.entries}
    assert spaces == {"fixed": ["lr", "beta2"], "own": ["lr", "eps"], "momentum": ["lr", "momentum"]}
    assert plan.entries[0].fixed == {"weight_decay": 0.3}


def test_an_entry_of_a_few_steps_does_not_hide_the_others() -> None:
    plan = make_plan(digits.change(epochs=10), bracket="data")
    assert plan.quarter_runs == {"sgd": 4, "minibatch": 4}, "gradient descent on all examples makes ten steps"
    assert plan.runs == 3 * (26 + 32) + 8
