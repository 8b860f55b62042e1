"""Recurrent layers and cells in basic operations, since torch's versions have no batching rule.

Matrix products are calls of `torch.nn.functional.linear`, which has a stacked version.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import linear

Layer = Callable[..., Any]


def recurrent(layer: Layer) -> Layer:
    """Return a stacked version of a recurrent module that runs the module's layers one after the other.

    Torch's own decomposition omits the dropout between several layers (torch 2.13, `_rnn_helper`).

    Args:
        layer: torch's decomposition of `aten::lstm`, `gru`, `rnn_tanh` or `rnn_relu`.
    """

    def run(
        x: Tensor,
        hidden: Any,
        weights: Any,
        biases: bool,
        layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        if isinstance(biases, list | tuple):
            return NotImplemented  # packed sequences
        x = x.transpose(0, 1) if batch_first else x
        directions, weights_per_layer, final_states = 1 + bidirectional, len(weights) // layers, []
        for i in range(layers):
            rows = slice(i * directions, (i + 1) * directions)
            start = [h[rows] for h in hidden] if isinstance(hidden, list | tuple) else hidden[rows]
            layer_weights = weights[i * weights_per_layer : (i + 1) * weights_per_layer]
            # In float32 and bfloat16 the decomposition prefers a kernel of oneDNN, which has no batching rule.
            with torch.backends.mkldnn.flags(enabled=False):
                x, *final_state = layer(x, start, layer_weights, biases, 1, 0.0, train, bidirectional, False)
            final_states.append(final_state)
            if i < layers - 1:
                x = functional.dropout(x, dropout, train)
        return x.transpose(0, 1) if batch_first else x, *(torch.cat(parts) for parts in zip(*final_states, strict=True))

    return run


def lstm_cell(
    x: Tensor,
    state: tuple[Tensor, Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute `torch.lstm_cell` in basic operations."""
    h, c = state
    i, f, g, o = (linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_cell(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """Compute `torch.gru_cell` in basic operations."""
    x_reset, x_update, x_new = linear(x, w_ih, b_ih).chunk(3, -1)
    h_reset, h_update, h_new = linear(h, w_hh, b_hh).chunk(3, -1)
    new = torch.tanh(x_new + torch.sigmoid(x_reset + h_reset) * h_new)
    return (h - new) * torch.sigmoid(x_update + h_update) + new


def rnn_cell(activation: Callable[[Tensor], Tensor]) -> Layer:
    """Return a stacked version of `torch.rnn_tanh_cell` or `torch.rnn_relu_cell`."""

    def run(
        x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
    ) -> Tensor:
        return activation(linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh))

    return run
