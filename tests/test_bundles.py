"""Bundles: what is in them, and that verification finds every change."""

import copy
import io
import json
import random
import re
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from msgspec import structs
from rich.console import Console

import gradprix as gp
from command_line import gradprix
from gradprix.race import BundleError, JournalError, LiveProgress, Plan, make_plan, run, verify, write_bundle
from gradprix.race.bundle import CODE, FIXED_FILES, MANIFEST, Bundle, pack_bundle, read_bundle
from gradprix.race.bundle_archive import ArchiveError, pack, unpack
from gradprix.race.entry import twin
from gradprix.race.rebuilt_plan import rebuild_plan
from gradprix.race.record_json import to_json
from gradprix.race.reduced_plans import note_omissions
from gradprix.race.repeated_runs import is_same_python
from gradprix.race.replay import RecordedRuns, follows_schedule, replay
from gradprix.race.run_comparison import NoiseScale, compare_within_noise
from gradprix.race.run_sample import detection_probability, draw_sample, sample_size
from gradprix.race.value_comparison import compare_values
from gradprix.race.verification_record import Cause, CheckKind, Finding, Status, Verification
from gradprix.show import verification_answer
from gradprix.stats.alpha_spending import next_level
from gradprix.text.verification import format_finding
from untimed import Untimed

TASK = """
import torch
from sizes import WIDTH

import gradprix as gp


def data():
    inputs = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    return gp.Data(inputs, (inputs.sum(1) > 0).long())


task = gp.Task(
    name="signs",
    model=lambda: torch.nn.Sequential(torch.nn.Linear(4, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, 2)),
    loss=torch.nn.functional.cross_entropy,
    metric=gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01, percent=True),
    baseline=0.5,
    data=data,
    batch_size=16,
    epochs=2,
)
"""
OPTIMIZER = '''
import torch


class Half(torch.optim.SGD):
    """Gradient descent that cannot go fast."""

    def __init__(self, params, lr=0.1, betas=(0.9, 0.99)):
        if lr > 5:
            raise RuntimeError("too fast")
        super().__init__(params, lr=lr / 2)
'''
LOOP = """
import torch

import gradprix as gp


@gp.rule("nowhere", relation="none.", space={"lr": gp.log(1e-3, 1e-1)}, lr=0.1)
def doubled(h, t, x, g):
    '''Take twice the step.'''
    x = x - 2 * h.lr * g
    return x


def train(make_optimizer, seed):
    torch.manual_seed(seed)
    weight = torch.nn.Parameter(torch.randn(3))
    optimizer = make_optimizer([weight])
    for _ in range(2):
        for _ in range(5):
            optimizer.zero_grad()
            (weight - 1).square().sum().backward()
            optimizer.step()
        score = float(-(weight - 1).square().sum())
        yield {"valid": score, "test": score}
"""
BUDGET: dict[str, Any] = {"trials": 2, "seeds": 6}


def status_of(verification: Verification, kind: CheckKind) -> Status:
    return next(check.status for check in verification.checks if check.kind is kind)


def causes(verification: Verification) -> set[Cause]:
    return {finding.cause for check in verification.checks for finding in check.findings}


def save(plan: Plan, folder: Path) -> Path:
    """Run a race and return its bundle."""
    run(plan, folder, Untimed(1))
    return write_bundle(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def digits(home: Path) -> Path:
    """Bundle of a race that was reduced to a time budget."""
    requested = make_plan("digits", "adam,momentum,cautious(lion)", preset="small", **BUDGET)
    reduced = replace(requested, entries=requested.entries[:2], task=requested.task.change(epochs=2))
    return save(note_omissions(requested, reduced), home / "digits")


@pytest.fixture(scope="module")
def own(home: Path) -> Path:
    """Bundle of a race on a task of the user, which imports another file, with an optimizer of the user."""
    folder = home / "code"
    folder.mkdir()
    for name, text in {"signs.py": TASK, "sizes.py": "WIDTH = 3\n", "half.py": OPTIMIZER}.items():
        (folder / name).write_text(text)
    names = f"adam,{folder}/half.py:Half,clipped(momentum, norm=1)"
    return save(make_plan(f"{folder}/signs.py", names, **BUDGET), home / "signs")


def rewritten(bundle: Bundle, change: Callable[[Any], None], path: Path) -> Path:
    """Write a bundle whose content was changed, with the right hashes."""
    content = copy.deepcopy(
        {
            "description": bundle.description,
            "setup": to_json(bundle.setup),
            "record": bundle.record,
            "runs": [to_json(each) for each in bundle.runs],
        }
    )
    change(content)
    members = {
        "plan.json": json.dumps({"description": content["description"], "setup": {**content["setup"], "code": {}}}),
        "record.json": json.dumps(content["record"]),
        "runs.jsonl": "\n".join(map(json.dumps, content["runs"])),
        "README.txt": "",
        **{f"code/{name}": text for name, text in content["setup"]["code"].items()},
    }
    path.write_bytes(_with_manifest({name: text.encode() for name, text in members.items()}))
    return path


def _with_manifest(members: dict[str, bytes]) -> bytes:
    import hashlib

    files = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    manifest = {"format": 1, "gradprix": gp.__version__, "files": files}
    return pack({MANIFEST: json.dumps(manifest).encode(), **members})


def finals(content: Any, entry: str = "adam") -> list[Any]:
    """Final runs of an entry with all examples, in the order of the seeds."""
    epochs = content["description"]["epochs"]
    rows = [each for each in content["runs"] if each["entry"] == entry and each["trial"]["judged"]]
    return [each for each in rows if each["trial"]["epochs"] == epochs]


def tuning(content: Any, entry: str = "adam") -> list[Any]:
    return [each for each in content["runs"] if each["entry"] == entry and not each["trial"]["judged"]]


def exchange(rows: tuple[Any, Any], key: str = "outcome") -> None:
    rows[0][key], rows[1][key] = rows[1][key], rows[0][key]


def different(rows: list[Any]) -> tuple[Any, Any]:
    """Two runs with different scores."""
    return rows[0], next(row for row in rows if row["outcome"]["test_metric"] != rows[0]["outcome"]["test_metric"])


def set_value(path: str, value: Any) -> Callable[[Any], None]:
    """Change that sets the value at a path such as `record.entries.0.tuned.lr`."""

    def change(content: Any) -> None:
        *parents, last = path.split(".")
        for key in parents:
            content = content[int(key)] if isinstance(content, list) else content[key]
        key = int(last) if isinstance(content, list) else last
        assert content[key] != value
        content[key] = value

    return change


def duplicate_run(content: Any) -> None:
    content["runs"].append(content["runs"][0])


def add_run(content: Any) -> None:
    content["runs"].append({**content["runs"][0], "key": "0" * 24})


def drop_entry(content: Any) -> None:
    for part in (content["description"], content["setup"], content["record"]):
        del part["entries"][1]


def rename_keys(content: Any) -> None:
    """Exchange two entries wherever they are named in the runs."""
    for row in content["runs"]:
        row["entry"] = {"adam": "momentum", "momentum": "adam"}[row["entry"]]


CHANGES: dict[str, tuple[Callable[[Any], None], Cause]] = {
    "score of a final run": (lambda c: finals(c)[0]["outcome"].update(test_metric=0.5), Cause.RECORD),
    "curve of a final run": (lambda c: finals(c)[0]["outcome"]["curve"][0].__setitem__(1, 9.0), Cause.RECORD),
    "loss of a tuning run": (lambda c: tuning(c)[0]["outcome"]["curve"][-1].__setitem__(2, 9.0), Cause.RECORD),
    "divergence of a tuning run": (lambda c: tuning(c)[0]["outcome"].update(diverged=3), Cause.RECORD),
    "score in the answer": (set_value("record.entries.0.final.values.0", 0.5), Cause.RECORD),
    "mean in the answer": (set_value("record.entries.0.final.mean", 0.5), Cause.RECORD),
    "recommended": (set_value("record.verdict.take", "nadam"), Cause.RECORD),
    "bound": (set_value("record.verdict.bound", 1e-9), Cause.RECORD),
    "verdict of a pair": (set_value("record.verdict.pairs.0.p", 1e-9), Cause.RECORD),
    "tuned learning rate": (set_value("record.entries.0.tuned.lr", 0.5), Cause.RECORD),
    "code to copy": (set_value("record.best.code", "torch.optim.SGD(params)"), Cause.RECORD),
    "arguments to use": (set_value("record.best.arguments", {"lr": 1.0}), Cause.RECORD),
    "number of runs": (set_value("record.cost.trials", 1_000), Cause.RECORD),
    "task of the answer": (set_value("record.task", "mnist"), Cause.RECORD),
    "versions of the answer": (set_value("record.versions.torch", "1.0"), Cause.RECORD),
    "reductions": (set_value("setup.left_out", []), Cause.PLAN),
    "reductions in the answer": (set_value("record.plan.left_out", []), Cause.RECORD),
    "a dropped final run": (lambda c: c["runs"].remove(finals(c)[0]), Cause.MISSING_RUNS),
    "a dropped tuning run": (lambda c: c["runs"].remove(tuning(c)[0]), Cause.MISSING_RUNS),
    "a run that is twice there": (duplicate_run, Cause.UNUSED_RUNS),
    "a run of another race": (add_run, Cause.UNUSED_RUNS),
    "seeds in another order": (lambda c: exchange(different(finals(c))), Cause.RECORD),
    "outcomes of two entries": (lambda c: exchange((finals(c)[0], finals(c, "momentum")[0])), Cause.RECORD),
    "keys of two entries": (
        lambda c: exchange((finals(c)[0], finals(c, "momentum")[0]), "key"),
        Cause.MISLABELLED_RUNS,
    ),
    "names of two entries": (rename_keys, Cause.MISLABELLED_RUNS),
    "seed of a run": (lambda c: finals(c)[0]["trial"].update(seed=77), Cause.MISLABELLED_RUNS),
    "learning rate of a run": (lambda c: tuning(c)[0]["trial"]["values"].update(lr=7.0), Cause.MISLABELLED_RUNS),
    "margin": (set_value("description.metric.margin", 0.2), Cause.RECORD),
    "direction": (set_value("description.metric.higher_is_better", False), Cause.RECORD),
    "number of seeds": (set_value("description.seeds", 32), Cause.MISSING_RUNS),
    "number of trials": (set_value("description.trials", 26), Cause.MISSING_RUNS),
    "base seed": (set_value("description.seed", 3), Cause.MISSING_RUNS),
    "epochs": (set_value("description.epochs", 3), Cause.MISSING_RUNS),
    "number of examples": (set_value("setup.task.examples", 99), Cause.PLAN),
    "fingerprint": (set_value("description.fingerprint", "0" * 64), Cause.RECORD),
    "equations": (set_value("description.entries.0.equations", ["x = x"]), Cause.PLAN),
    "search range": (set_value("setup.entries.0.space.lr.values", [1e-5, 1.0]), Cause.MISSING_RUNS),
    "stated search range": (set_value("description.entries.0.space.lr", [1e-5, 1.0]), Cause.PLAN),
    "fixed value": (set_value("setup.entries.1.fixed.momentum", 0.5), Cause.MISSING_RUNS),
    "optimizer": (set_value("setup.entries.0.location", "gradprix.rules:nadam"), Cause.MISSING_RUNS),
    "a function as optimizer": (set_value("setup.entries.0.location", "torch.optim:sys"), Cause.IMPOSSIBLE),
    "a dropped entry": (drop_entry, Cause.IMPOSSIBLE),
    "interim analyses": (set_value("record.verdict.looks", [[6, 0.05]]), Cause.INTERIM_ANALYSES),
    "a value of another type": (set_value("record.verdict.looks", [[6, "x"]]), Cause.RECORD),
    "an impossible value": (set_value("setup.entries.0.space.lr.values", [1.0, 0.1]), Cause.IMPOSSIBLE),
    "artifacts of another type": (lambda c: tuning(c)[0]["outcome"].update(after="x"), Cause.IMPOSSIBLE),
    "an impossible outcome": (lambda c: finals(c)[0]["outcome"].update(curve=[]), Cause.IMPOSSIBLE),
}
"""Changes of a bundle whose hashes are right, with the finding that they must lead to, without any training."""


def test_a_bundle_agrees_to_the_bit(digits: Path) -> None:
    verification = verify(digits, every=True, engine=Untimed(1))
    assert [check.status for check in verification.checks] == [Status.AGREES] * 3
    sample = verification.sample
    assert sample is not None
    assert sample.is_bitwise
    assert sample.repeated == sample.total == verification.runs
    assert read_bundle(digits).read_record().plan.left_out, "a race reduced to a budget is rebuilt as it ran"


def test_a_bundle_has_reproducible_bytes(digits: Path, tmp_path: Path) -> None:
    assert write_bundle(digits.parent, tmp_path).read_bytes() == digits.read_bytes()
    assert pack_bundle(read_bundle(digits), digits.name) == digits.read_bytes()


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_found(name: str, digits: Path, tmp_path: Path) -> None:
    change, cause = CHANGES[name]
    file = rewritten(read_bundle(digits), change, tmp_path / digits.name)
    try:
        verification = verify(file, runs=0)
    except BundleError:
        assert name == "a value of another type", "this record cannot even be read"
        return
    assert status_of(verification, CheckKind.ANSWER) is Status.DIFFERS
    assert cause in causes(verification)
    assert status_of(verification, CheckKind.FILES) is Status.AGREES


def test_an_unchanged_copy_agrees(digits: Path, tmp_path: Path) -> None:
    """The changes above are found, and not the way in which the tests write a bundle."""
    file = rewritten(read_bundle(digits), lambda content: None, tmp_path / digits.name)
    verification = verify(file, runs=0)
    assert [check.status for check in verification.checks] == [Status.AGREES, Status.AGREES, Status.NOT_CHECKED]
    assert causes(verification) == {Cause.NOT_REQUESTED}


def test_scores_that_differ_are_named_first(digits: Path, tmp_path: Path) -> None:
    def change(content: Any) -> None:
        finals(content, "momentum")[2]["outcome"]["test_metric"] = 0.123456789012

    verification = verify(rewritten(read_bundle(digits), change, tmp_path / digits.name), runs=0)
    (finding,) = (each for check in verification.checks for each in check.findings if each.cause is Cause.RECORD)
    number = [entry.name for entry in read_bundle(digits).read_record().entries].index("momentum")
    mean, value, *others = finding.differences
    assert (mean.where, value.where) == (f"entries.{number}.final.mean", f"entries.{number}.final.values.2")
    assert value.actual == "0.123457"
    places = list(dict.fromkeys(each.where.partition(".")[0] for each in others))
    assert places[:2] == ["verdict", "entries"]
    assert places[2:], "other places follow"


@pytest.mark.parametrize(
    ("stated", "actual", "texts"),
    [
        (0.1234567891234, 0.2, ("0.123457", "0.2")),
        (0.1234567891234, 0.1234567891235, ("0.1234567891234", "0.1234567891235")),
        (1, 1.0000000001, ("1", "1.0000000001")),
        (None, 1 / 3, ("None", "0.333333")),
        (123456789, 123456780, ("123456789", "123456780")),
        ("a" * 80 + "b", "a" * 80 + "c", (f"...{'a' * 30}b'", f"...{'a' * 30}c'")),
        ([0.5] * 30, [0.5] * 31, (f"...{', 0.5' * 6}]", f"...{', 0.5' * 7}]")),
        ("b" * 80, "c", (f"'{'b' * 59}...", "'c'")),
    ],
)
def test_values_that_differ_look_different(stated: Any, actual: Any, texts: tuple[str, str]) -> None:
    (difference,) = compare_values(stated, actual)
    assert (difference.stated, difference.actual) == texts


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("count", [1, 2])
def test_findings_agree_in_number(cause: Cause, count: int) -> None:
    names = ("adam", "lion")[:count]
    text = format_finding(Finding(cause=cause, names=names, message="the optimizer lion is not here."))
    one, two = r"training run (that )?(are|have|state)\b|^These", r"training runs (that )?(is|has|states)\b|^This"
    assert not re.search(one if count == 1 else two, text), text
    assert text.endswith(".")
    assert "  " not in text


@pytest.mark.parametrize("plan", [None, [], {"entries": [], "trials": 2, "seeds": 6}, {"task": 5}])
def test_plans_of_another_type_are_refused(plan: Any, digits: Path, tmp_path: Path) -> None:
    file = rewritten(read_bundle(digits), lambda content: content.update(description=plan), tmp_path / digits.name)
    with pytest.raises(BundleError, match="no bundle"):
        verify(file, runs=0)


def forged(bundle: Bundle, change: Callable[[Any], None], path: Path) -> Path:
    """Write a bundle whose runs were changed, with the result that follows from the changed runs."""

    def forge(content: Any) -> None:
        change(content)
        runs = {each["key"]: gp.race.journal.Outcome.from_json(json.dumps(each["outcome"])) for each in content["runs"]}
        plan, record = rebuild_plan(bundle.description, bundle.setup), bundle.read_record()
        recorded = RecordedRuns(runs, record.cost.step_seconds, bundle.setup.environment)
        content["record"] = to_json(replay(plan, recorded, record.plan.mode, record.verdict.interim_analyses))

    return rewritten(bundle, forge, path)


def improve(content: Any) -> None:
    for row in finals(content, "momentum"):
        row["outcome"]["test_metric"] += 0.05


def test_forged_runs_with_the_answer_that_follows_are_found_by_training(digits: Path, tmp_path: Path) -> None:
    file = forged(read_bundle(digits), improve, tmp_path / digits.name)
    assert causes(verify(file, runs=0)) == {Cause.NOT_REQUESTED}, "nothing but training finds this"
    verification = verify(file, runs=1, seed=0, engine=Untimed(1))
    assert status_of(verification, CheckKind.ANSWER) is Status.AGREES
    assert status_of(verification, CheckKind.RUNS) is Status.DIFFERS
    assert causes(verification) == {Cause.VALUES}


ELSEWHERE = "gradprix 0.1.0 (arithmetic 9), torch 2.0.0, numpy 1.0.0, x86_64 AVX2"


def other_rounding(content: Any) -> None:
    """Make a bundle claim another machine, and be verified one model at a time, which rounds otherwise than a stack."""
    content["setup"]["environment"] = ELSEWHERE
    content["record"]["plan"]["mode"]["stacked"] = False


def test_runs_of_another_machine_are_compared_with_the_noise_of_a_seed(digits: Path, tmp_path: Path) -> None:
    bundle = read_bundle(digits)
    elsewhere = rewritten(bundle, other_rounding, tmp_path / "a.gradprix.zip")
    verification = verify(elsewhere, every=True, engine=Untimed(1))
    assert verification.status is Status.WITHIN_NOISE
    sample = verification.sample
    assert sample is not None
    assert not sample.is_bitwise
    assert sample.identical < sample.repeated, "another rounding"
    assert sample.largest_deviation is not None
    assert sample.largest_deviation < 1

    def change(content: Any) -> None:
        other_rounding(content)
        improve(content)

    file = forged(bundle, change, tmp_path / "b.gradprix.zip")
    verification = verify(file, every=True, engine=Untimed(1))
    assert status_of(verification, CheckKind.RUNS) is Status.DIFFERS


@pytest.mark.parametrize(
    ("deviations", "changes_losses", "finals_of_each", "is_found"),
    [(1, False, 1, True), (4, True, 1, False), (4, True, 3, True), (1, True, 3, False)],
)
def test_a_shift_of_one_optimizer_is_found_in_a_bundle_that_states_another_machine(
    deviations: float,
    changes_losses: bool,
    finals_of_each: int,
    is_found: bool,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By deviations between seeds. Training here has the numbers of the bundle to the bit before they were changed."""

    def shift(content: Any) -> None:
        content["setup"]["environment"] = ELSEWHERE
        rows = finals(content, "momentum")
        amount = deviations * stdev(row["outcome"]["test_metric"] for row in rows)
        for row in rows:
            row["outcome"]["test_metric"] += amount
            row["outcome"]["curve"][0][1] *= 1 + 1e-9 * changes_losses

    monkeypatch.setattr("gradprix.race.run_sample.SEVERAL_FINALS", finals_of_each)
    file = forged(read_bundle(digits), shift, tmp_path / digits.name)
    verification = verify(file, runs=1, seed=0, engine=Untimed(1))
    assert status_of(verification, CheckKind.ANSWER) is Status.AGREES
    assert status_of(verification, CheckKind.RUNS) is (Status.DIFFERS if is_found else Status.WITHIN_NOISE)


def test_a_loss_that_contradicts_the_curve_is_named(digits: Path, tmp_path: Path) -> None:
    """On another machine, where scores are compared within the noise and this score is equal."""

    def change(content: Any) -> None:
        content["setup"]["environment"] = ELSEWHERE
        for row in finals(content, "momentum"):
            row["outcome"]["test_loss"] += 1

    file = forged(read_bundle(digits), change, tmp_path / digits.name)
    verification = verify(file, runs=1, seed=0, engine=Untimed(1))
    differences = [each for check in verification.checks for finding in check.findings for each in finding.differences]
    assert differences
    assert all(each.where.endswith(": test_loss") and each.stated != each.actual for each in differences)


def test_the_guide_lists_the_files_of_a_bundle() -> None:
    guide = (Path(__file__).parents[1] / "docs/bundles.md").read_text()
    assert all(f"| `{name}` |" in guide for name in (MANIFEST, *FIXED_FILES, CODE))


def test_a_damaged_file_is_found(digits: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(digits) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["README.txt"] += b"more"
    file = tmp_path / digits.name
    file.write_bytes(pack(members))
    gradprix("verify", file.name, "--runs", "0", "--report", "page.html", folder=tmp_path, code=1)
    assert not (tmp_path / "page.html").exists()
    verification = verify(file, runs=0)
    assert status_of(verification, CheckKind.FILES) is Status.DIFFERS
    assert causes(verification) == {Cause.HASHES, Cause.NOT_REQUESTED}
    with pytest.raises(BundleError, match=r"README\.txt"):
        gp.load(file)


@pytest.mark.parametrize(
    "name", ["../x.py", "/x.py", "code/../../x.py", "code\\x.py", "code/c:x.py", "other.txt", "code/./x.py", "code/"]
)
def test_unsafe_and_unknown_members_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.gradprix.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"")
    with pytest.raises(BundleError, match="member"):
        read_bundle(file)


def test_a_bundle_cannot_write_over_its_verification_in_the_terminal(digits: Path) -> None:
    verification = structs.replace(verify(digits, runs=0), task="digits\n\ntraining runs  agrees")
    console = Console(file=io.StringIO(), width=80)
    console.print(verification_answer(verification, digits.name))
    assert "training runs  agrees" not in map(str.strip, console.file.getvalue().splitlines())


CONTROLS = "\x1b[2J\x1b]0;title\x07\x9b8m\r\u202e"
"""Clears the screen, changes the title of the window, hides texts, overwrites a line, and reverses it."""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("report FILE", 0),
        ("compare FILE FILE", 0),
        ("export FILE", 0),
        ("verify FILE --runs 0", 1),
        ("report MISSING", 2),
    ],
)
def test_texts_of_a_bundle_do_not_control_the_terminal(command: str, code: int, digits: Path, tmp_path: Path) -> None:
    def rename(content: Any) -> None:
        text = json.dumps(content["record"])
        for name in ("adam", "digits"):
            text = text.replace(f'"{name}"', json.dumps(f"[red]{name}{CONTROLS}"))
        content["record"] = json.loads(text)

    names = {name: str(tmp_path / f"{name}{CONTROLS}.gradprix.zip") for name in ("FILE", "MISSING")}
    rewritten(read_bundle(digits), rename, Path(names["FILE"]))
    done = gradprix(*(names.get(word, word) for word in command.split()), folder=tmp_path, code=code)
    shown = done.output + repr(gp.load(names["FILE"]))
    assert not set(CONTROLS) & set(shown) - set("[2J]0;title8m")
    assert "[red]adam" in done.output or command not in ("report FILE", "compare FILE FILE"), "markup is no style"


def test_archives_that_are_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack({"a": b"0" * 1_000_000})
    monkeypatch.setattr("gradprix.race.bundle_archive.MAX_BYTES", 999_999)
    with pytest.raises(ArchiveError, match="larger"):
        unpack(data, lambda name: True)


def test_no_more_is_decompressed_than_the_header_states() -> None:
    size, stated = 30_000_000, 10
    data = pack({"a": bytes(size)}).replace(size.to_bytes(4, "little"), stated.to_bytes(4, "little"))
    tracemalloc.start()
    with pytest.raises(ArchiveError):
        unpack(data, lambda name: True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 10


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_compression_are_refused(method: int, tmp_path: Path) -> None:
    file = tmp_path / "a.gradprix.zip"
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("manifest.json", "{}")
    with pytest.raises(BundleError, match="deflate"):
        read_bundle(file)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip archive", pack({"manifest.json": b"{}"}), pack({})])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.gradprix.zip"
    file.write_bytes(content)
    for read in (read_bundle, gp.load, verify):
        with pytest.raises(BundleError, match="bundle"):
            read(file)


@pytest.mark.parametrize(
    ("name", "change", "place"),
    [
        ("runs.jsonl", lambda text: text[: text.index(b"\n") + 500], "runs.jsonl, line 2, column "),
        ("runs.jsonl", lambda text: text.replace(b"\n", b"\n{}\n", 1), "runs.jsonl, line 2: .*missing .*`key`"),
        ("record.json", lambda text: text[:-100], r"record.json, line \d\d+, column "),
        ("record.json", lambda text: b"[]", "record.json: Expected `object`"),
        ("plan.json", lambda text: b"", "plan.json, line 1, column 1"),
        ("plan.json", lambda text: b"{}", "plan.json: .*`description`"),
        ("manifest.json", lambda text: b"{", "manifest.json, line 1, column 2"),
    ],
)
def test_messages_name_the_place_of_an_error(
    name: str, change: Callable[[bytes], bytes], place: str, digits: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(digits) as archive:
        members = {member: archive.read(member) for member in archive.namelist() if member != MANIFEST}
    file = tmp_path / digits.name
    if name == MANIFEST:
        file.write_bytes(pack({**members, MANIFEST: change(b"")}))
    else:
        file.write_bytes(_with_manifest({**members, name: change(members[name])}))
    with pytest.raises(BundleError, match=f"no bundle that gradprix can read: {place}"):
        read_bundle(file)


def test_code_of_others_is_run_on_request_alone(own: Path, home: Path, tmp_path: Path) -> None:
    bundle = read_bundle(own)
    assert sorted(bundle.setup.code) == ["1/half.py", "1/signs.py", "1/sizes.py"]
    assert bundle.read_record().failed, "the race has runs that failed"
    shutil.move(home / "code", home / "away")  # the code in the bundle is run, and no other
    try:
        unread = verify(own, engine=Untimed(1))
        assert status_of(unread, CheckKind.ANSWER) is Status.AGREES
        assert status_of(unread, CheckKind.RUNS) is Status.NOT_CHECKED
        assert causes(unread) == {Cause.CODE_NOT_RUN}
        assert unread.sample is None

        read = verify(own, every=True, run_code=True, engine=Untimed(1))
        assert read.status is Status.AGREES
        assert read.sample is not None
        assert read.sample.is_bitwise
        assert read.sample.repeated == read.runs

        def change_code(content: Any) -> None:
            content["setup"]["code"]["1/sizes.py"] = "WIDTH = 4\n"
            content["setup"]["code"]["1/half.py"] += "\n# faster\n"

        changed = verify(rewritten(bundle, change_code, tmp_path / "b.gradprix.zip"), run_code=True, engine=Untimed(1))
        assert changed.status is Status.DIFFERS
        assert causes(changed) == {Cause.OTHER_TASK}
    finally:
        shutil.move(home / "away", home / "code")


def test_own_copies_of_the_code_are_used_if_they_are_the_same(own: Path, home: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(home / "code", tmp_path / "copy")
    task, optimizer = f"{folder}/signs.py:task", f"{folder}/half.py:Half"
    partly = verify(own, runs=1, task=task, engine=Untimed(1))
    assert status_of(partly, CheckKind.RUNS) is Status.NOT_CHECKED
    assert partly.sample is not None, "the runs of optimizers of gradprix are repeated"
    assert partly.sample.available < partly.sample.total, "the probability is that for these runs"
    assert verify(own, runs=1, task=task, optimizers=[optimizer], engine=Untimed(1)).status is Status.AGREES
    (folder / "half.py").write_text(OPTIMIZER.replace("lr / 2", "lr / 3"))
    with pytest.raises(ValueError, match="your optimizer half"):
        verify(own, runs=1, task=task, optimizers=[optimizer], engine=Untimed(1))
    (folder / "sizes.py").write_text("WIDTH = 4\n")
    with pytest.raises(ValueError, match="your task 'signs'"):
        verify(own, runs=1, task=task, engine=Untimed(1))
    earlier = rewritten(read_bundle(own), set_value("setup.machine.python", "3.9.1"), tmp_path / "b.gradprix.zip")
    verification = verify(earlier, runs=1, task=task, engine=Untimed(1))
    assert verification.sample is not None
    assert not verification.sample.is_same_task, "with another Python that may be no other task"
    assert status_of(verification, CheckKind.RUNS) is Status.DIFFERS


@pytest.mark.parametrize(("end", "is_same"), [("", True), (", NVIDIA H200", True), (None, False)])
def test_versions_are_compared_without_processor_and_device(end: str | None, is_same: bool, digits: Path) -> None:
    bundle = read_bundle(digits)
    here = bundle.setup.environment
    environment = here.replace("torch 2", "torch 1") if end is None else here + end
    setup = structs.replace(bundle.setup, environment=environment)
    assert is_same_python(replace(bundle, setup=setup)) is is_same


def test_objects_of_a_program_are_replayed_but_not_trained(home: Path) -> None:
    task = gp.Task(
        name="objects",
        model=lambda: torch.nn.Linear(2, 2),
        loss=torch.nn.functional.cross_entropy,
        metric=gp.Metric("accuracy", gp.tasks.accuracy, higher_is_better=True, margin=0.01, percent=True),
        baseline=0.5,
        data=lambda: gp.Data(torch.eye(2).repeat(40, 1), torch.tensor([0, 1]).repeat(40)),
        batch_size=16,
        epochs=1,
    )
    adam = gp.race.ENTRIES["adam"]
    entries = [adam, twin(adam, 1), gp.Entry("torch", torch.optim.RMSprop, space={"lr": gp.log(1e-3, 1e-1)})]
    verification = verify(save(make_plan(task, entries, **BUDGET), home / "objects"), engine=Untimed(1))
    assert status_of(verification, CheckKind.ANSWER) is Status.AGREES
    assert causes(verification) == {Cause.CODE_UNKNOWN}
    again = verify(home / "objects/objects.gradprix.zip", every=True, task=task, engine=Untimed(1))
    assert again.status is Status.AGREES, "optimizers of torch are not code of others"
    assert again.sample is not None
    assert again.sample.is_bitwise


def test_a_training_loop_and_a_rule_of_the_user(home: Path) -> None:
    folder = home / "loop"
    folder.mkdir()
    (folder / "line.py").write_text(LOOP)
    plan = make_plan(f"{folder}/line.py:train", f"adam,{folder}/line.py:doubled", direction="max", **BUDGET)
    file = save(plan, home / "line")
    unread = verify(file)
    assert status_of(unread, CheckKind.ANSWER) is Status.NOT_CHECKED, "a rule has no stand-in"
    assert Cause.CODE_NOT_RUN in causes(unread)
    verification = verify(file, runs=2, run_code=True, engine=Untimed(1))
    assert verification.status is Status.AGREES
    assert verification.sample is not None
    assert verification.sample.is_loop


class Interrupt(Exception):
    """Ends a race early."""


def test_races_without_a_result_are_refused(digits: Path, tmp_path: Path) -> None:
    def watch(progress: LiveProgress) -> None:
        if progress.phase == "final":
            raise Interrupt

    plan = make_plan("digits", "adam,momentum", preset="small", epochs=1, **BUDGET)
    with pytest.raises(Interrupt):
        run(plan, tmp_path / "stopped", Untimed(1), watch)
    with pytest.raises(BundleError, match="not finished"):
        write_bundle(tmp_path / "stopped")
    folder = shutil.copytree(digits.parent, tmp_path / "earlier")
    with gp.race.Journal(folder) as journal:
        journal.write("setup", None)
    with pytest.raises(BundleError, match="Run the command"):
        write_bundle(folder)
    with pytest.raises(JournalError, match="race"):
        write_bundle(make_folder(tmp_path / "changed", digits))


def make_folder(folder: Path, digits: Path) -> Path:
    """Return a copy of a race in which a score was changed."""
    shutil.copytree(digits.parent, folder)
    with gp.race.Journal(folder) as journal:
        record = journal.read("record")
        record["entries"][0]["final"]["values"][0] = 0.5
        journal.write("record", record)
    return folder


@pytest.mark.parametrize(
    ("analyses", "is_valid"),
    [
        ([8, 16, 32], True),
        ([6], True),
        ([8, 16, 20, 64], True),
        ([6, 32], True),
        ([32], False),
        ([8, 32], False),
    ],
)
def test_analyses_that_were_due_cannot_be_left_out(analyses: list[int], is_valid: bool) -> None:
    done: list[tuple[int, float]] = []
    for seeds in analyses:
        done.append((seeds, next_level(done, seeds)))
    assert follows_schedule(done) is is_valid
    assert not follows_schedule([(seeds, level / 2) for seeds, level in done])


@pytest.mark.parametrize(("total", "share"), [(40, 0.05), (612, 0.05), (612, 0.01), (5, 0.05)])
def test_a_sample_finds_a_change_with_the_stated_probability(total: int, share: float) -> None:
    drawn, changed = sample_size(total, share), max(1, -int(-share * total // 1))
    assert detection_probability(total, drawn, share) >= 0.95 > detection_probability(total, drawn - 1, share)
    rng, wrong = random.Random(0), set(range(changed))
    hits = [bool(wrong & set(rng.sample(range(total), drawn))) for _ in range(4_000)]
    assert abs(sum(hits) / len(hits) - detection_probability(total, drawn, share)) < 0.02


def replayed_runs(file: Path) -> RecordedRuns:
    """Runs of a bundle, after a replay of its race."""
    bundle = read_bundle(file)
    plan, record = rebuild_plan(bundle.description, bundle.setup), bundle.read_record()
    recorded = RecordedRuns(bundle.outcomes(), record.cost.step_seconds, bundle.setup.environment)
    replay(plan, recorded, record.plan.mode, record.verdict.interim_analyses)
    return recorded


@pytest.mark.parametrize(("stated", "again", "is_found"), [(0.2, -0.1, True), (0.2, 0.0, True), (-0.2, 0.0, False)])
def test_a_tuning_run_is_no_outlier_of_rounding_if_it_is_too_good(
    stated: float, again: float, is_found: bool, digits: Path
) -> None:
    """Metrics of one tuning run relative to the final runs, in a bundle of another machine."""
    recorded = replayed_runs(digits)
    trials = {key: trial for key, trial in recorded.used.items() if (trial.entry_name, trial.epochs) == ("adam", 2)}
    final = fmean(recorded.outcomes[key].valid_metric for key, trial in trials.items() if trial.evaluates_test)
    forged = next(key for key, trial in trials.items() if not trial.evaluates_test)

    def outcomes(metric: float) -> dict[str, Any]:
        outcome = recorded.outcomes[forged]
        *before, (examples, train_loss, valid_loss, _) = outcome.curve
        curve = [*before, (examples, train_loss, valid_loss - metric, final + metric)]
        return {**recorded.outcomes, forged: replace(outcome, curve=curve, diverged=None)}

    scales = {("adam", 2): NoiseScale(test=0.01, valid=0.01, margin=0.005)}
    result = compare_within_noise(trials, outcomes(stated), outcomes(again), scales, True)
    assert set(result.different) == ({forged} if is_found else set())


def test_a_sample_has_runs_of_every_entry(digits: Path) -> None:
    recorded = replayed_runs(digits)
    for seed in range(20):
        keys = draw_sample(recorded.used, 1, seed, {"adam"})
        chosen = [recorded.used[key] for key in keys]
        kinds = [(trial.entry_name, trial.evaluates_test, trial.epochs) for trial in chosen]
        assert len(set(keys)) == len(keys)
        every = {(trial.entry_name, trial.evaluates_test, trial.epochs) for trial in recorded.used.values()}
        assert set(kinds) == every
        assert kinds.count(("adam", True, 2)) >= 3
    assert draw_sample(recorded.used, 5, 1, {"adam"}) != draw_sample(recorded.used, 5, 2, {"adam"})


def test_commands_take_a_bundle_in_place_of_a_folder(digits: Path, tmp_path: Path) -> None:
    file, changed = tmp_path / "digits.gradprix.zip", tmp_path / "changed.gradprix.zip"
    shutil.copy(digits, file)
    rewritten(read_bundle(digits), CHANGES["recommended"][0], changed)
    folder = json.loads(gradprix("report", str(digits.parent), "--json", folder=tmp_path).stdout)
    bundle = json.loads(gradprix("report", file.name, "--json", folder=tmp_path).stdout)
    places = ("out", "report")
    assert {k: v for k, v in folder.items() if k not in places} == {k: v for k, v in bundle.items() if k not in places}
    page = (tmp_path / "digits.gradprix/report.html").read_text()
    assert "Provenance" in page
    assert read_bundle(file).sha256 in page
    assert "Provenance" not in Path(folder["report"]).read_text()
    gradprix("export", file.name, "--to", "latex", folder=tmp_path)
    assert (tmp_path / "digits.gradprix/entries.tex").exists()
    done = gradprix("compare", file.name, str(digits.parent), folder=tmp_path)
    assert "digits (1) and digits (2) are the same race" in done.stdout
    for other in (file.name, str(digits.parent)):
        done = gradprix("export", file.name, other, "--to", "latex", folder=tmp_path, code=2)
        assert f"{file.name} and {other} are the same race" in done.output
    gradprix("export", file.name, "--to", "bundle", folder=tmp_path, code=2)

    done = gradprix("verify", file.name, "--runs", "0", "--json", "--report", "v.html", folder=tmp_path)
    assert json.loads(done.stdout)["status"] == "not_checked"
    assert "(--runs 0)" in gradprix("verify", file.name, "--runs", "0", folder=tmp_path).stdout
    assert "Nothing differs" in (tmp_path / "v.html").read_text()
    done = gradprix("verify", changed.name, "--runs", "0", folder=tmp_path, code=1)
    assert "nadam" in done.stdout
    for place, message in (("missing.zip", "there is no file missing.zip."), (".", "gradprix export . --to bundle")):
        assert message in gradprix("verify", place, folder=tmp_path, code=2).output
    assert "cluster" not in gradprix("verify", "--help", folder=tmp_path).output
    gradprix("verify", file.name, "--all", "--runs", "0", folder=tmp_path, code=2)


@pytest.mark.slow
def test_a_race_on_digits_is_verified_in_another_process(tmp_path: Path) -> None:
    import subprocess
    import sys

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gradprix", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)

    assert call("race", "digits").returncode == 0
    assert call("export", "runs/digits", "--to", "bundle", "--out", ".").returncode == 0
    done = call("verify", "digits.gradprix.zip", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "agrees"
    assert result["sample"]["is_bitwise"]
    forged(read_bundle(tmp_path / "digits.gradprix.zip"), improve, tmp_path / "forged.gradprix.zip")
    assert call("verify", "forged.gradprix.zip").returncode == 1
