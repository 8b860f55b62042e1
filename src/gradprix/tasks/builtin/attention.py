"""The layers of small transformers."""

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention: softmax(Q Kᵀ / √d) V (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    Args:
        width: of what goes in and comes out.
        heads: how many attend side by side, each over `d = width / heads` numbers.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, math.sqrt(heads / width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, of: Tensor, mask: Tensor) -> Tensor:
        """What each place of `x` gathers from the places of `of`.

        Args:
            x: `[batch, places, width]`.
            of: `[batch, others, width]`.
            mask: is added to `[batch, heads, places, others]`: 0 where a place may look, -∞ where it may not.

        Returns:
            `[batch, places, width]`.
        """
        q, k, v = self._split(self.query(x)), self._split(self.key(of)), self._split(self.value(of))
        weights = torch.softmax(self.scale * q @ k.mT + mask, dim=-1)
        found: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return found

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """A transformer layer that normalizes first (Xiong et al. 2020, arXiv:2002.04745).

    Args:
        width: of what goes in and comes out; the layer between is four times as wide.
        heads: of the attention.
        looks: whether it looks at another sequence besides its own, as a decoder does.
    """

    def __init__(self, width: int, heads: int, looks: bool = False) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        if looks:
            self.look_norm, self.look = nn.LayerNorm(width), Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor, other: Tensor | None = None, other_mask: Tensor | None = None) -> Tensor:
        """The sequence, changed.

        Args:
            x: `[batch, places, width]`.
            mask: as in `Attention`, of its places to one another.
            other: the other sequence.
            other_mask: of its places to those of the other.

        Returns:
            `[batch, places, width]`.
        """
        own = self.norm(x)
        x = x + self.attention(own, own, mask)
        if other is not None and other_mask is not None:
            x = x + self.look(self.look_norm(x), other, other_mask)
        found: Tensor = x + self.mlp(x)
        return found


class Embed(nn.Module):
    """Tokens as vectors, with a vector for each place added.

    Args:
        tokens: how many different ones there are.
        places: how long sequences are at most.
        width: of the vectors.
    """

    def __init__(self, tokens: int, places: int, width: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(tokens, width), nn.Parameter(torch.empty(places, width))
        for weight in (self.token.weight, self.place):
            nn.init.normal_(weight, std=0.02)  # as GPT-2 has it

    def forward(self, x: Tensor) -> Tensor:
        """Vectors `[batch, places, width]` of tokens `[batch, places]`."""
        found: Tensor = self.token(x) + self.place[: x.shape[1]]
        return found


def causal(places: int) -> Tensor:
    """The mask by which a place sees itself and what comes before it."""
    return torch.full((places, places), -math.inf).triu(1)


def padding(tokens: Tensor) -> Tensor:
    """The mask that hides padding, token 0, from everybody: `[batch, 1, 1, places]`."""
    return torch.zeros_like(tokens, dtype=torch.get_default_dtype()).masked_fill(tokens == 0, -math.inf)[:, None, None]
