"""The fused path: every dtype, layout and circumstance in which one call steps many tensors."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gradprix import optim
from gradprix.kernels import STORAGE_DTYPES, _compile, _launch, compile_kernel, hoist_scalars

SHARED = [name for name in optim.__all__ if hasattr(getattr(optim, name), "rule") and hasattr(torch.optim, name)]
CLASSES = [name for name in SHARED if name != "Muon"]  # which steps matrices alone
FUSED = [name for name in CLASSES if getattr(optim, name).rule.scope == "element"]
WHOLE = [name for name in CLASSES if name not in FUSED]
"""Classes whose rules see whole tensors of their true shape: they have no kernel."""


def trained(
    name: str,
    shapes: list[tuple[int, ...]],
    steps: int = 20,
    dtype: Any = torch.float32,
    module: Any = optim,
    **given: Any,
) -> Any:
    """Parameters after some steps on fixed gradients."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]
    optimizer = getattr(module, name)(params, lr=0.01, **given)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(dtype)
        optimizer.step()
    return params, optimizer


def step_with(optimizer: Any, params: list[torch.nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
    optimizer.step()


def nearest_root(a: Any) -> Any:
    return torch.from_numpy(np.asarray(np.sqrt(a.numpy()))) if isinstance(a, torch.Tensor) else np.sqrt(a)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_fused_equals_eager_to_the_bit(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch's own square root on CPU comes from MKL and is not always the nearest number; a kernel's is.
    for module in ("_adam", "_adaptive"):
        monkeypatch.setattr(f"gradprix.rules.{module}.sqrt", nearest_root)
    shapes = [(300, 70), (1,), (17,), (40_000,)]
    fused, optimizer = trained(name, shapes, dtype=dtype)
    eager, _ = trained(name, shapes, dtype=dtype, fused=False)

    assert optimizer._plan.batches, "the fused path was taken"
    assert not optimizer._plan.eager
    for a, b in zip(fused, eager, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rules_of_whole_tensors_step_alike_whatever_is_asked(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "sqrt", nearest_root)
    shapes = [(30, 7), (1,), (17,), (4, 3, 2)]
    ends = []
    for given in ({}, {"fused": True}, {"fused": False}, {"foreach": True}, {"foreach": False}):
        params, optimizer = trained(name, shapes, dtype=dtype, **given)
        vectors = [x for batch in optimizer._plan.batches for x in batch.params]
        assert vectors == ([] if given == {"fused": False} else params[1:3])
        assert not optimizer._plan.foreach_batches
        stacked = [x for batch in optimizer._plan.stack_batches for x in batch.params]
        is_stacked = given != {"fused": False} and dtype is not torch.bfloat16
        assert stacked == ([params[0], params[3]] if is_stacked else [])
        assert {x for x, _ in optimizer._plan.eager} == {*params} - {*vectors, *stacked}
        ends.append(params)
    for other in ends[1:]:
        assert all(map(torch.equal, other, ends[0]))
    if dtype is not torch.bfloat16:  # in which torch computes, too; here it is float32
        theirs, _ = trained(name, shapes, dtype=dtype, module=torch.optim)
        bound = 1e-12 if dtype is torch.float64 else 2e-5
        for a, b in zip(ends[0], theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=bound, atol=bound)


def test_large_work_is_cut_over_threads_without_changing_a_bit() -> None:
    shapes, threads = [(700_000,), (3,), (400_000,)], torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(trained("NAdam", shapes, steps=3)[0])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_threads_of_our_own_where_those_of_torch_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = trained("NAdam", [(700_000,), (3,)], steps=3)[0]
    monkeypatch.setattr(_launch, "openmp_team", lambda: None)
    own = trained("NAdam", [(700_000,), (3,)], steps=3)[0]
    assert all(torch.equal(a, b) for a, b in zip(shared, own, strict=True))


def test_two_optimizers_step_from_two_threads() -> None:
    alone, found = trained("Adam", [(500_000,)], steps=5)[0], {}

    def work(number: int) -> None:
        found[number] = trained("Adam", [(500_000,)], steps=5)[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i][0], alone[0]) for i in range(2))


def test_what_kernels_do_not_step_goes_alone_and_is_right() -> None:
    generator = torch.Generator().manual_seed(0)

    def make() -> list[torch.nn.Parameter]:
        plain = torch.randn(4, 6, generator=generator.manual_seed(1))
        return [
            torch.nn.Parameter(plain.clone()),
            torch.nn.Parameter(plain.clone().T),  # not contiguous
            torch.nn.Parameter(torch.tensor(2.0)),  # no dimensions
            torch.nn.Parameter(torch.zeros(0, 3)),  # no elements
            torch.nn.Parameter(plain.double()),  # another dtype
        ]

    ours, theirs = make(), make()
    a, b = optim.RAdam(ours, lr=0.1), torch.optim.RAdam(theirs, lr=0.1)
    for t in range(15):
        step_with(a, ours, t)
        step_with(b, theirs, t)
    assert len(a._plan.batches) == 2
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_a_gradient_of_another_layout_is_taken_as_it_is() -> None:
    p, q = torch.nn.Parameter(torch.zeros(4, 6)), torch.nn.Parameter(torch.zeros(4, 6))
    a, b = optim.Adam([p]), torch.optim.Adam([q])
    for t in range(5):
        g = torch.randn(6, 4, generator=torch.Generator().manual_seed(t)).T
        p.grad, q.grad = g.contiguous() if t % 2 else g, g.clone()
        a.step()
        b.step()
    torch.testing.assert_close(p, q)


def test_parameters_may_be_given_other_storage() -> None:
    params, optimizer = trained("Adam", [(50,)])
    same, other = trained("Adam", [(50,)])
    params[0].data = params[0].data.clone()
    step_with(optimizer, params, 9)
    step_with(other, same, 9)
    assert torch.equal(params[0], same[0])


def test_state_that_is_put_in_by_hand_is_used() -> None:
    params, optimizer = trained("Adam", [(50,)])
    optimizer.state[params[0]]["exp_avg"] = torch.full((50,), 5.0)
    params[0].grad = torch.zeros(50)
    before = params[0].detach().clone()
    optimizer.step()
    assert (params[0] < before).all()
    assert torch.equal(optimizer.state[params[0]]["exp_avg"], torch.full((50,), 4.5))


def test_options_may_change_between_steps() -> None:
    runs = []
    for module in (optim, torch.optim):
        params = [torch.nn.Parameter(torch.ones(5, dtype=torch.float64))]
        optimizer = module.SGD(params, lr=0.1)
        for t in range(12):
            optimizer.param_groups[0].update(momentum=0.9 if t > 4 else 0, nesterov=t > 8, lr=0.1 / (t + 1))
            step_with(optimizer, params, t)
        runs.append(params[0].detach())
    torch.testing.assert_close(*runs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_go_on_alike_and_apart(way: str) -> None:
    params, optimizer = trained("NAdam", [(30,), (7,)])
    pair = (params, optimizer)
    copied, twin = copy.deepcopy(pair) if way == "deepcopy" else pickle.loads(pickle.dumps(pair))
    for seed in range(3):
        step_with(optimizer, params, seed)
    before = [p.detach().clone() for p in params]
    for seed in range(3):
        step_with(twin, copied, seed)
    assert all(torch.equal(p, q) for p, q in zip(params, copied, strict=True))
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True)), "the original did not move"


@pytest.mark.parametrize("derived", [False, True])
def test_hooks_are_called_once_and_a_profiler_sees_the_step(derived: bool) -> None:
    class Mine(optim.Adam):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = (Mine if derived else optim.Adam)([p])
    seen: list[str] = []
    handles = [
        optimizer.register_step_pre_hook(lambda *_: seen.append("before")),
        optimizer.register_step_post_hook(lambda *_: seen.append("after")),
        register_optimizer_step_pre_hook(lambda *_: seen.append("global")),
    ]
    try:
        optimizer.step()
    finally:
        for handle in handles:
            handle.remove()
    assert seen == ["global", "before", "after"]
    with torch.profiler.profile() as profile:
        optimizer.step()
    assert f"Optimizer.step#{type(optimizer).__name__}.step" in [event.key for event in profile.key_averages()]


def test_zero_grad_both_ways_and_hooks() -> None:
    params, optimizer = trained("Adam", [(5,)])
    optimizer.zero_grad(set_to_none=False)
    assert torch.equal(params[0].grad, torch.zeros(5))
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.step()
    assert seen == ["before", "after"]
    optimizer.zero_grad()
    assert params[0].grad is None


@pytest.mark.parametrize("name", CLASSES)
def test_a_tensor_learning_rate(name: str) -> None:
    runs = []
    for lr in (0.01, torch.tensor(0.01, dtype=torch.float64)):
        p = torch.nn.Parameter(torch.ones(5, dtype=torch.float64))
        optimizer = getattr(optim, name)([p], lr=lr)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for t in range(5):
            step_with(optimizer, [p], t)
            schedule.step()
        runs.append(p.detach())
    assert torch.equal(*runs)


def test_other_names_of_torch_optim_are_passed_through() -> None:
    assert optim.LBFGS is torch.optim.LBFGS
    assert optim.lr_scheduler is torch.optim.lr_scheduler
    with pytest.raises(AttributeError, match="Adm"):
        _ = optim.Adm


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_zero_gradients_leave_half_precision_finite(name: str, dtype: torch.dtype) -> None:
    # torch's eps underflows in float16: zero over zero.
    p = torch.nn.Parameter(torch.ones(4, dtype=dtype))
    optimizer = getattr(optim, name)([p])
    for _ in range(3):
        p.grad = torch.zeros(4, dtype=dtype)
        optimizer.step()
    assert torch.isfinite(p).all()


@pytest.mark.parametrize("fused", [None, False])
def test_small_steps_add_up_in_bfloat16(fused: bool | None) -> None:
    # 1 - 1e-3 rounds back to 1 in bfloat16: without compensation the weight never moves, and in torch it does not.
    p = torch.nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
    q = torch.nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
    a, b = optim.SGD([p], lr=1e-3, fused=fused), torch.optim.SGD([q], lr=1e-3)
    for _ in range(1000):
        p.grad = torch.ones_like(p)
        q.grad = torch.ones_like(q)
        a.step()
        b.step()
    assert (q == 1).all()
    torch.testing.assert_close(p.float(), torch.zeros(1000), atol=2e-3, rtol=0)


def test_bfloat16_training_follows_float32() -> None:
    half, _ = trained("Adam", [(1000,)], steps=200, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    full = torch.nn.Parameter(torch.randn(1000, generator=generator).bfloat16().float())
    optimizer = torch.optim.Adam([full], lr=0.01)
    for _ in range(200):
        full.grad = torch.randn(1000, generator=generator).bfloat16().float()
        optimizer.step()
    assert (half[0].float() - full).abs().max() < 0.01 * full.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_checkpoint_goes_on_here_exactly_and_in_torch(dtype: torch.dtype) -> None:
    params, optimizer = trained("Adam", [(64,)], dtype=dtype)
    state = copy.deepcopy(optimizer.state_dict())
    again = [torch.nn.Parameter(params[0].detach().clone())]
    other = optim.Adam(again, lr=0.01)
    other.load_state_dict(state)
    there = [torch.nn.Parameter(params[0].detach().clone())]
    theirs = torch.optim.Adam(there, lr=0.01)
    theirs.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(3):
        step_with(optimizer, params, seed)
        step_with(other, again, seed)
        step_with(theirs, there, seed)
    assert other.state[again[0]]["exp_avg"].dtype == torch.float32
    assert torch.equal(params[0], again[0])
    assert torch.isfinite(there[0]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_compensation_that_torch_has_stepped_past_is_dropped(dtype: torch.dtype) -> None:
    params, optimizer = trained("Adam", [(64,)], dtype=dtype)
    theirs = torch.optim.Adam(params, lr=0.01)
    theirs.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    back = optim.Adam(params, lr=0.01)
    back.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert "compensation" in back.state[params[0]], "nobody has stepped: it still holds"
    step_with(theirs, params, 1)
    back.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert "compensation" not in back.state[params[0]]
    step_with(back, params, 2)
    assert torch.isfinite(params[0]).all()


def test_denormals_are_flushed_and_the_callers_setting_is_kept() -> None:
    p = torch.nn.Parameter(torch.ones(100))
    optimizer = optim.Adam([p])
    p.grad = torch.full((100,), 1e-18)  # its square, times 1e-3, is denormal
    optimizer.step()
    assert (optimizer.state[p]["exp_avg_sq"] == 0).all()
    assert torch.tensor(1e-40) * 1 > 0, "outside a step denormals are as they were"


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


STEP = """
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from gradprix import optim
p = torch.nn.Parameter(torch.ones(5)); p.grad = torch.ones(5)
optim.Adamax([p], lr=0.1).step()
print(round(p[0].item(), 4))
"""


def test_kernels_are_kept_on_disk_in_a_folder_of_the_users_own(tmp_path: Path) -> None:
    assert run(STEP, GRADPRIX_CACHE=str(tmp_path)) == "0.9"
    folder = tmp_path / "gradprix" / "kernels"
    assert folder.stat().st_mode & 0o777 == 0o700
    (file,) = folder.iterdir()
    assert file.name.startswith("adamax_")
    stamp = file.stat().st_mtime_ns
    again = run(f"{STEP}\nimport sys; print('numba' in sys.modules)", GRADPRIX_CACHE=str(tmp_path))
    assert again.split() == ["0.9", "False"], "what is kept is run without a compiler"
    assert file.stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_a_kernel_file_that_is_not_what_was_written_is_made_anew(tmp_path: Path) -> None:
    run(STEP, GRADPRIX_CACHE=str(tmp_path))
    folder = tmp_path / "gradprix" / "kernels"
    (file,) = folder.iterdir()
    kept = file.read_bytes()
    for broken in (b"", b"torn", kept[:-100], kept[:100] + b"?" + kept[101:]):
        file.write_bytes(broken)
        assert run(STEP, GRADPRIX_CACHE=str(tmp_path)) == "0.9"
        assert len(file.read_bytes()) == len(kept), "a file that is not what was written is made anew"
        assert list(folder.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o755, pytest.param(0o500, marks=pytest.mark.slow)])
def test_a_folder_that_is_not_private_and_writable_is_not_used(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "gradprix" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    assert run(STEP, GRADPRIX_CACHE=str(tmp_path)) == "0.9"
    assert not list(folder.iterdir())


def test_a_missing_numba_costs_speed_and_one_warning(tmp_path: Path) -> None:
    code = f"import sys, warnings; sys.modules['numba'] = None; warnings.simplefilter('always')\n{STEP}{STEP}"
    environment = {**os.environ, "GRADPRIX_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["0.9", "0.9"]
    assert done.stderr.count("optimizers run eagerly") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_may_step() -> None:
    code = """
import os, torch
from gradprix import optim
p = torch.nn.Parameter(torch.ones(1_000_000)); p.grad = torch.ones(1_000_000)
torch.set_num_threads(2)
o = optim.Adam([p], lr=0.1); o.step()
child = os.fork()
if child == 0:
    o.step()
    os._exit(0 if abs(p[0].item() - 0.8) < 1e-3 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "0", done.stderr


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler itself looks at the loss's
def test_torch_compile_around_a_training_step() -> None:
    model = torch.nn.Linear(4, 2)
    optimizer = optim.NAdam(model.parameters(), lr=0.05)
    x = torch.ones(8, 4)

    @torch.compile(backend="eager")
    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(10)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", WHOLE)
def test_rules_of_whole_tensors_have_no_kernel_and_say_so(name: str) -> None:
    rule = getattr(optim, name).rule
    with pytest.raises(ValueError, match="steps whole tensors of their true shape"):
        hoist_scalars(rule, rule.values())


@pytest.mark.parametrize("name", FUSED)
def test_every_rule_compiles_for_every_dtype(name: str) -> None:
    rule = getattr(optim, name).rule
    for stored in STORAGE_DTYPES.values():
        assert compile_kernel(hoist_scalars(rule, rule.values()), stored) is not None
    assert _compile.cache_folder() is None or _compile.cache_folder().is_dir()


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of memory cannot be reset here")
def test_no_temporary_as_large_as_the_parameters() -> None:
    code = """
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from pathlib import Path
from gradprix import optim

def memory(kind):
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(kind)) * 1024

n = 20_000_000
p = torch.nn.Parameter(torch.ones(n)); p.grad = torch.ones(n)
o = optim.Adam([p])
o.step()
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
held = memory("VmRSS")
for _ in range(3):
    o.step()
print((memory("VmHWM") - held) / (4 * n), held / (4 * n))
"""
    more, held = map(float, run(code).split())
    assert held > 4, "the parameter, its gradient and two buffers of state"
    assert more < 0.1
