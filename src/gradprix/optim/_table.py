"""Tensors that one kernel call steps together."""

from collections.abc import Mapping, Sequence
from operator import attrgetter, is_
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradprix.kernels import STORED, Kernel, Split, Work, start, wide
from gradprix.rules import Rule

from ._alone import LOW, steps_taken

Values = Mapping[str, Any]
GRADIENT, SIZE = attrgetter("grad"), attrgetter("nbytes")  # torch lets no gradient have another dtype of that size
PLAIN = {nn.Parameter, Tensor}


def fits_kernel(x: Tensor) -> bool:
    """Whether a parameter and its gradient are what kernels step: plain dense tensors on the CPU."""
    return (
        type(x) in PLAIN
        and x.device.type == "cpu"
        and x.dtype in STORED
        and x.numel() > 0
        and x.is_contiguous()
        and not x.is_inference()
        and _usable(x.grad, x)
    )


def _usable(g: Tensor | None, x: Tensor) -> bool:
    return (
        g is not None
        and type(g) in PLAIN
        and g.layout is torch.strided
        and g.dtype is x.dtype
        and g.shape == x.shape
        and g.is_contiguous()
        and not g.is_neg()
        and g.data_ptr() != 0  # as that of a tensor of zeros that takes no memory
    )


class Table:
    """Parameters of one rule, one set of options and one dtype, with their state, ready for one call a step.

    Addresses are read anew at each step and hold only while it runs; what is cut into chunks stays.

    Args:
        rule: the rule.
        split: the rule, split under the options.
        kernel: compiled from it for the dtype.
        params: the parameters, each with the number of its group.
        state: the optimizer's state, in which missing entries are made.
        values: each group's hyperparameters.
        counted_in: the dtype of the step counts.
    """

    def __init__(
        self,
        rule: Rule,
        split: Split,
        kernel: Kernel,
        params: Sequence[tuple[Tensor, int]],
        state: Any,
        values: Sequence[Values],
        counted_in: torch.dtype,
    ) -> None:
        self.counted_in = counted_in
        self.rule, self.split, self.kernel = rule, split, kernel
        self.params = [x for x, _ in params]
        self.dtype = self.params[0].dtype
        remembers = rule.counts_steps or split.tensors or split.numbers or self.dtype is torch.bfloat16
        self.held = [state[x] if remembers else state.get(x, {}) for x in self.params]  # plain SGD leaves state empty
        taken = [steps_taken(rule, h) for h in self.held]
        names = [rule.state[name].key for name in split.tensors]
        arrays = [self._element_state(name, params, values) for name in split.tensors]
        if self.dtype is torch.bfloat16:
            names, arrays = [*names, LOW], [*arrays, self._low()]
        else:
            _ = [h.pop(LOW, None) for h in self.held]
        self.sizes = list(map(SIZE, self.params))
        # The imaginary part of a conjugate has a sign yet to be turned; contiguous it is only when single.
        self.single = [x for x in self.params if x.numel() == 1]
        cells = [(h, name) for name in names for h in self.held]
        self.cells = tuple(zip(*cells, strict=True)) or ((), ())
        self.tensors = [tensor for column in arrays for tensor in column]  # held: what has an address stays there
        self.places = list(map(Tensor.data_ptr, [*self.params, *self.tensors]))
        columns = np.array(self.places, dtype=np.int64).reshape(-1, len(params))
        pointers = np.ascontiguousarray(np.insert(columns, 1, 0, axis=0).T)
        self._share_numbers(params, taken, values)
        constants = np.empty((len(self.rows), len(split.constants)))
        self.work = Work(list(map(Tensor.numel, self.params)), self.row_of, pointers, constants)
        self._aim(list(map(GRADIENT, self.params)))

    def _element_state(self, name: str, params: Any, values: Sequence[Values]) -> list[Tensor]:
        spec = self.rule.state[name]
        tensors = []
        for (x, group), h in zip(params, self.held, strict=True):
            tensor = h.get(spec.key)
            if tensor is None:
                like = x.to(wide(x.dtype)) if wide(x.dtype) is not x.dtype else x
                tensor = start(spec, values[group], like, x.grad)
            if tensor.shape != x.shape:
                raise RuntimeError(
                    f"the state {spec.key!r} of a parameter of shape {tuple(x.shape)} has shape {tuple(tensor.shape)}: "
                    "it belongs to another network. Leave it out of what is loaded."
                )
            tensors.append(tensor.to(x.device, wide(x.dtype)).contiguous())
            h[spec.key] = tensors[-1]
        return tensors

    def _low(self) -> list[Tensor]:
        for x, h in zip(self.params, self.held, strict=True):
            low = h.get(LOW)
            fits = low is not None and low.dtype is x.dtype and low.shape == x.shape
            h[LOW] = low.contiguous() if fits else torch.zeros_like(x, memory_format=torch.contiguous_format)
        return [h[LOW] for h in self.held]

    def _share_numbers(self, params: Any, taken: list[int], values: Sequence[Values]) -> None:
        """Keep steps and scalar state of all parameters in one array each; the state's own tensors are views of it."""
        steps = torch.tensor(taken, dtype=self.counted_in, device="cpu")
        names = self.split.numbers
        keys = [self.rule.state[name].key for name in names]
        scalars = torch.tensor(
            [
                [
                    float(h[key]) if key in h else float(start(self.rule.state[name], values[group], x, x))
                    for name, key in zip(names, keys, strict=True)
                ]
                for (x, group), h in zip(params, self.held, strict=True)
            ],
            dtype=torch.float64,
            device="cpu",
        ).reshape(len(params), len(names))
        for i, h in enumerate(self.held):
            counted = {"step": steps[i]} if self.rule.counts_steps else {}
            h.update({**counted, **{key: scalars[i, k] for k, key in enumerate(keys)}})
        counts = ("step",) if self.rule.counts_steps else ()
        views = [(h, key, h[key]) for key in (*counts, *keys) for h in self.held]
        self.views = tuple(zip(*views, strict=True)) or ((), (), ())
        # Parameters of one group that have taken the same steps share a row of constants.
        self.rows: dict[tuple[Any, ...], int] = {}
        self.row_of = [
            self.rows.setdefault((group, t, *numbers), len(self.rows))
            for (_, group), t, numbers in zip(params, taken, scalars.tolist(), strict=True)
        ]
        self.now = [(group, t, tuple(numbers)) for group, t, *numbers in self.rows]
        self.steps, self.numbers = steps.numpy(), scalars.numpy()
        self.written = self.steps.tobytes(), self.numbers.tobytes()

    def fits(self) -> bool:
        """Whether every tensor is still what and where it was, but for the gradients, which come anew each time."""
        gradients: list[Any] = list(map(GRADIENT, self.params))
        try:
            plain = (
                set(map(type, gradients)) <= PLAIN
                and all(map(Tensor.is_contiguous, gradients))
                and list(map(SIZE, gradients)) == self.sizes
                and not any(x.grad.is_neg() for x in self.single)  # type: ignore[union-attr]
            )
            self._aim(gradients)
            tensors: list[Any] = [*self.params, *map(dict.get, *self.cells)]
            there = list(map(Tensor.data_ptr, tensors)) == self.places
        except (TypeError, RuntimeError):  # something is missing, or of a layout that has no strides
            return False
        return (
            plain
            and there
            and bool(self.work.pointers.all())
            and all(map(is_, map(dict.get, *self.views[:2]), self.views[2]))
            and (self.steps.tobytes(), self.numbers.tobytes()) == self.written
        )

    def _aim(self, gradients: list[Tensor]) -> None:
        self.gradients = gradients  # held for as long as their addresses are used
        self.work.pointers[:, 1] = np.fromiter(map(Tensor.data_ptr, gradients), np.int64, len(gradients))

    def step(self, values: Sequence[Values]) -> None:
        """Step every parameter once, with the gradients that were found to fit."""
        for i, (group, t, numbers) in enumerate(self.now):
            constants, after = self.split.scalars(SimpleNamespace(**values[group]), t + 1, *numbers)
            self.work.constants[i] = constants
            self.now[i] = (group, t + 1, after)
        self.work.run(self.kernel)
        self.gradients = []
        torch.autograd.graph.increment_version(self.params)
        # Through NumPy: a torch operation costs more than a small step's own arithmetic.
        self.steps += 1
        if self.split.numbers:
            self.numbers[:] = [self.now[row][2] for row in self.row_of]
        self.written = self.steps.tobytes(), self.numbers.tobytes()
