"""Layers of small transformers."""

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention: softmax(Q Kᵀ / √d) V (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    Args:
        width: size of input and output vectors.
        heads: number of heads, each of size `d = width / heads`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, math.sqrt(heads / width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Attend from `x` to `context`.

        Args:
            x: queries, `[batch, length, width]`.
            context: keys and values, `[batch, context, width]`; `x` itself for self-attention.
            mask: added to the scores `[batch, heads, length, context]`: 0 for visible positions, -∞ for hidden ones.

        Returns:
            `[batch, length, width]`.
        """
        q, k, v = (self._split_heads(y) for y in (self.query(x), self.key(context), self.value(context)))
        weights = torch.softmax(self.scale * q @ k.mT + mask, dim=-1)
        output: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return output

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Transformer layer with pre-normalization (Xiong et al. 2020, arXiv:2002.04745).

    Args:
        width: size of input and output vectors; the hidden layer of the MLP is four times as wide.
        heads: number of attention heads.
        cross_attention: also attend to a second sequence, as in a decoder.
    """

    def __init__(self, width: int, heads: int, cross_attention: bool = False) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        if cross_attention:
            self.cross_norm, self.cross_attention = nn.LayerNorm(width), Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, mask: Tensor, context: Tensor | None = None, context_mask: Tensor | None = None
    ) -> Tensor:
        """Apply the layer.

        Args:
            x: `[batch, length, width]`.
            mask: mask of the self-attention, as in `Attention`.
            context: the second sequence.
            context_mask: mask of the cross-attention.

        Returns:
            `[batch, length, width]`.
        """
        normalized = self.norm(x)
        x = x + self.attention(normalized, normalized, mask)
        if context is not None and context_mask is not None:
            x = x + self.cross_attention(self.cross_norm(x), context, context_mask)
        output: Tensor = x + self.mlp(x)
        return output


class TokenEmbedding(nn.Module):
    """Token embedding plus learned position embedding, both initialized as in GPT-2.

    Args:
        vocabulary_size: number of tokens.
        max_length: maximum length of a sequence.
        width: embedding dimension.
    """

    def __init__(self, vocabulary_size: int, max_length: int, width: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary_size, width), nn.Parameter(torch.empty(max_length, width))
        for weight in (self.token.weight, self.position):
            nn.init.normal_(weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Embed tokens `[batch, length]` as vectors `[batch, length, width]`."""
        output: Tensor = self.token(x) + self.position[: x.shape[1]]
        return output


def causal_mask(length: int) -> Tensor:
    """Return the mask `[length, length]` that hides later positions."""
    return torch.full((length, length), -math.inf).triu(1)


def padding_mask(tokens: Tensor) -> Tensor:
    """Return the mask `[batch, 1, 1, length]` that hides padding (token 0)."""
    return torch.zeros_like(tokens, dtype=torch.get_default_dtype()).masked_fill(tokens == 0, -math.inf)[:, None, None]
