"""Tensors that one kernel call steps together."""

from collections.abc import Mapping, Sequence
from operator import attrgetter, is_
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradprix.kernels import STORED, Kernel, Split, Work, start
from gradprix.rules import Rule

from ._alone import LOW, steps_taken, wide

Values = Mapping[str, Any]
GRADIENT, DTYPE = attrgetter("grad"), attrgetter("dtype")


def fits_kernel(x: Tensor) -> bool:
    """Whether a parameter and its gradient are what kernels step: plain dense tensors on the CPU."""
    return (
        type(x) in (nn.Parameter, Tensor)
        and x.device.type == "cpu"
        and x.dtype in STORED
        and x.numel() > 0
        and x.is_contiguous()
        and _usable(x.grad, x.dtype)
    )


def _usable(g: Tensor | None, dtype: torch.dtype) -> bool:
    return g is not None and g.layout is torch.strided and g.dtype is dtype and g.is_contiguous()


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
    """

    def __init__(
        self,
        rule: Rule,
        split: Split,
        kernel: Kernel,
        params: Sequence[tuple[Tensor, int]],
        state: Any,
        values: Sequence[Values],
    ) -> None:
        self.rule, self.split, self.kernel = rule, split, kernel
        self.params = [x for x, _ in params]
        self.dtype = self.params[0].dtype
        held = [state[x] for x in self.params]
        taken = [steps_taken(h) for h in held]
        arrays = [self._element_state(name, params, held, values) for name in split.tensors]
        if self.dtype is torch.bfloat16:
            arrays.append(self._low(held))
        keys = [rule.state[name].key for name in split.tensors] + [LOW] * (self.dtype is torch.bfloat16)
        cells = [
            (h, key, t) for key, column in zip(keys, arrays, strict=True) for h, t in zip(held, column, strict=True)
        ]
        self.cells = tuple(zip(*cells, strict=True)) or ((), (), ())
        self.places = [x.data_ptr() for x in self.params]
        still = [[tensor.data_ptr() for tensor in column] for column in arrays]
        pointers = np.ascontiguousarray(np.array([self.places, self.places, *still], dtype=np.int64).T)
        self._share_numbers(params, held, taken, values)
        constants = np.empty((len(self.rows), len(split.constants)))
        self.work = Work([x.numel() for x in self.params], self.row_of, pointers, constants)
        self.gradients: list[Tensor] = [x.grad for x in self.params if x.grad is not None]

    def _element_state(self, name: str, params: Any, held: list[Any], values: Sequence[Values]) -> list[Tensor]:
        spec = self.rule.state[name]
        tensors = []
        for (x, group), h in zip(params, held, strict=True):
            tensor = h.get(spec.key)
            if tensor is None:
                like = x.to(wide(x.dtype)) if wide(x.dtype) is not x.dtype else x
                tensor = start(spec, values[group], like, x.grad)
            tensors.append(tensor.to(wide(x.dtype)).contiguous())
            h[spec.key] = tensors[-1]
        return tensors

    def _low(self, held: list[Any]) -> list[Tensor]:
        for x, h in zip(self.params, held, strict=True):
            if LOW not in h:
                h[LOW] = torch.zeros_like(x)
        return [h[LOW] for h in held]

    def _share_numbers(self, params: Any, held: list[Any], taken: list[int], values: Sequence[Values]) -> None:
        """Keep steps and scalar state of all parameters in one array each; the state's own tensors are views of it."""
        steps = torch.tensor(taken, dtype=torch.float32)
        names = self.split.numbers
        keys = [self.rule.state[name].key for name in names]
        scalars = torch.tensor(
            [
                [
                    float(h[key]) if key in h else float(start(self.rule.state[name], values[group], x, x))
                    for name, key in zip(names, keys, strict=True)
                ]
                for (x, group), h in zip(params, held, strict=True)
            ],
            dtype=torch.float64,
        ).reshape(len(held), len(names))
        for i, h in enumerate(held):
            h["step"] = steps[i]
            h.update({key: scalars[i, k] for k, key in enumerate(keys)})
        # Parameters of one group that have taken the same steps share a row of constants.
        self.rows: dict[tuple[Any, ...], int] = {}
        self.row_of = [
            self.rows.setdefault((group, t, *numbers), len(self.rows))
            for (_, group), t, numbers in zip(params, taken, scalars.tolist(), strict=True)
        ]
        self.now = [(group, t, tuple(numbers)) for group, t, *numbers in self.rows]
        self.steps, self.numbers = steps.numpy(), scalars.numpy()

    def fits(self) -> bool:
        """Whether every tensor is still what and where it was, but for the gradients, which come anew each time."""
        gradients = list(map(GRADIENT, self.params))
        try:
            dense = all(map(Tensor.is_contiguous, gradients))
        except (TypeError, RuntimeError):  # one is None, or of a layout that has no strides
            return False
        self.gradients = gradients  # held for as long as their addresses are used
        return (
            dense
            and set(map(DTYPE, gradients)) == {self.dtype}
            and list(map(Tensor.data_ptr, self.params)) == self.places
            and all(map(is_, map(dict.get, *self.cells[:2]), self.cells[2]))
        )

    def step(self, values: Sequence[Values]) -> None:
        """Step every parameter once, with the gradients that were found to fit."""
        for i, (group, t, numbers) in enumerate(self.now):
            constants, after = self.split.scalars(SimpleNamespace(**values[group]), t + 1, *numbers)
            self.work.constants[i] = constants
            self.now[i] = (group, t + 1, after)
        self.work.pointers[:, 1] = np.fromiter(map(Tensor.data_ptr, self.gradients), np.int64, len(self.gradients))
        self.work.run(self.kernel)
        self.gradients = []
        # Through NumPy: a torch operation costs more than a small step's own arithmetic.
        self.steps += 1
        if self.split.numbers:
            self.numbers[:] = [self.now[row][2] for row in self.row_of]
