"""A step of a stack of networks, written out once as a list of operations.

Stacking networks, and finding their gradients, costs torch far more time than the arithmetic of small ones. So it is done
once: what comes of it is a graph of plain operations on stacked tensors, which is then run step after step.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from gradprix.tasks import Task
from gradprix.tasks._seeds import fresh

from ._noise import TAG, Noise

aten = torch.ops.aten
Like = tuple[tuple[tuple[int, ...], torch.dtype], ...]
FREE = {aten.detach.default, aten.alias.default}
"""What only autograd needs."""


@dataclass(frozen=True)
class Program:
    """A step, written out.

    Args:
        graph: the operations, on a list of tensors.
        noise: whether they draw random numbers.
        peak: about how many bytes it holds at most while it runs, besides what it is given.
        outputs: how the outputs are put together.
    """

    graph: torch.fx.GraphModule
    noise: bool
    peak: int
    outputs: Any

    def __call__(self, noise: Noise | None, *args: Tensor) -> Any:
        """Run it, with random numbers from `noise`."""
        with torch.no_grad():
            results = self.graph(*args, *[noise] * self.noise)
        return results if self.outputs is None else tree_unflatten(results, self.outputs)


@lru_cache(maxsize=64)
def program(task: Task, what: str, names: tuple[str, ...], leaves: int, like: Like) -> Program:
    """Write a step of stacked networks out.

    Args:
        task: the problem.
        what: `"train"` for `[losses, *gradients]`, with None for a leaf that nothing uses; `"score"` for
            `(outputs, losses)`.
        names: of the leaves (what gradients are wanted of), then of the other parameters and of the buffers.
        leaves: how many of the names are leaves.
        like: the stacked shape and the dtype of each of these, then of inputs and targets.

    Raises:
        ValueError: for a loss that is not one number, or a model that changes its own attributes as it runs.
    """
    model = fresh(task.model, 0)
    model.train(what == "train")
    outputs: list[Any] = [None]

    def output(tensors: dict[str, Tensor], inputs: Tensor) -> Any:
        return functional_call(model, (tensors,), (inputs,))

    def loss(tensors: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return task.loss(output(tensors, inputs), targets)

    def scored(tensors: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Any:
        found = output(tensors, inputs)
        return found, task.loss(found, targets)

    def train(*args: Tensor) -> Any:
        own = [x.detach().requires_grad_() for x in args[:leaves]]
        tensors = dict(zip(names, (*own, *args[leaves:-2]), strict=True))
        losses = vmap(loss, randomness="different")(tensors, *args[-2:])
        if losses.dim() != 1:
            raise ValueError(f"the loss of a batch has the shape {tuple(losses.shape[1:])}, not one number")
        gradients = torch.autograd.grad(losses.sum(), own, allow_unused=True)
        return [losses, *(None if g is None else g.contiguous() for g in gradients)]

    def score(*args: Tensor) -> Any:
        with torch.no_grad():
            found = vmap(scored, randomness="different")(dict(zip(names, args[:-2], strict=True)), *args[-2:])
        flat, outputs[0] = tree_flatten(found)
        return flat

    before = _attributes(model)
    with torch.random.fork_rng(devices=[]):
        made = make_fx(train if what == "train" else score)(*[torch.zeros(shape, dtype=kind) for shape, kind in like])
    if changed := [name for name, value in _attributes(model).items() if before.get(name) is not value]:
        raise ValueError(f"it changes {', '.join(changed)} as it runs, which networks in a stack would share")
    noise = _tidy(made.graph)
    made.recompile()
    return Program(made, noise, _peak(made.graph), outputs[0])


def _attributes(model: nn.Module) -> dict[str, Any]:
    """What a model keeps besides parameters and buffers."""
    return {
        f"{place}.{name}".lstrip("."): value
        for place, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_")
    }


def _tidy(graph: torch.fx.Graph) -> bool:
    """Take out what does nothing, and have random numbers drawn by row; returns whether there are any."""
    draws = []
    for node in list(graph.nodes):
        if node.target in FREE or (node.target is aten.permute.default and node.args[1] == [*range(len(node.args[1]))]):
            node.replace_all_uses_with(node.args[0])
        elif isinstance(node.target, torch._ops.OpOverload) and TAG in node.target.tags:
            draws.append(node)
    if draws:
        last = [node for node in graph.nodes if node.op == "placeholder"][-1]
        with graph.inserting_after(last):
            noise = graph.placeholder("noise")
        for node in draws:
            with graph.inserting_before(node):
                drawn = graph.call_method("draw", (noise, node.target, *node.args), dict(node.kwargs))
            drawn.meta = node.meta
            node.replace_all_uses_with(drawn)
            graph.erase_node(node)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.is_impure() or node.op == "call_method")
    return bool(draws)


def _peak(graph: torch.fx.Graph) -> int:
    """How many bytes are held at most, with each tensor let go after the last use of it or of a view of it."""
    nodes = list(graph.nodes)
    home: dict[torch.fx.Node, torch.fx.Node] = {}  # whose memory a node is in
    for node in nodes:
        schema = getattr(node.target, "_schema", None)
        shares = schema is not None and any(result.alias_info is not None for result in schema.returns)
        first = node.args[0] if node.args else None
        home[node] = home.get(first, first) if shares and isinstance(first, torch.fx.Node) else node
    last = {home[used]: i for i, node in enumerate(nodes) for used in node.all_input_nodes}
    held = most = 0
    ends: dict[int, int] = {}
    for i, node in enumerate(nodes):
        if home[node] is node and node.op != "placeholder" and node in last:
            size = _bytes(node.meta.get("val"))
            held += size
            ends[last[node]] = ends.get(last[node], 0) + size
        most = max(most, held)
        held -= ends.get(i, 0)
    return most


def _bytes(value: Any) -> int:
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
