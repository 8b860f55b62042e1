"""Modifiers of the gradient, which the base then steps with."""

from gradprix.rules._rule import State
from gradprix.rules.ops import clip, maximum, minimum, sqrt, total

from ._base_calls import step
from ._modifier import modifier


@modifier(
    "norm and value: torch.nn.utils.clip_grad_norm_ and clip_grad_value_, Pascanu et al. 2013, arXiv:1211.5063, "
    "Algorithm 1; ratio: Brock et al. 2021, arXiv:2102.06171, section 4.1, with one norm per tensor",
    relation="Equal to {base} if no gradient exceeds the limits.",
    prefix="max",
    max_norm=0.0,
    max_value=0.0,
    max_ratio=0.0,
)
def clipped(h, t, x, g):
    """Limits the gradient: its norm over all tensors, its values, or its norm relative to that of each tensor."""
    g = clip(g, -h.max_value, h.max_value) if h.max_value else g
    g = minimum(h.max_norm / (sqrt(total(g**2, over="group")) + 1e-6), 1) * g if h.max_norm else g
    limit = h.max_ratio * maximum(sqrt(total(x**2)), 1e-3) if h.max_ratio else 0
    g = minimum(limit / maximum(sqrt(total(g**2)), 1e-6), 1) * g if h.max_ratio else g
    x = step(x, g)
    return x


@modifier(
    "Yuan et al. 2024, arXiv:2411.10438, with the gradient of the previous step as in its authors' code",
    relation="Equal to {base} if γ = 0 and no gradient has a norm above 1.",
    prefix="mars",
    needs={"beta1": "the correction is scaled by the decay of the running mean of gradients"},
    state={"previous": State("mars_previous_grad")},
    mars_gamma=0.025,
)
def mars(h, t, x, g, previous):
    """Adds the scaled difference of successive gradients, and limits the norm of each tensor's gradient to 1."""
    corrected = g + h.mars_gamma * h.beta1 / (1 - h.beta1) * (g - previous)
    corrected = corrected / maximum(sqrt(total(corrected**2)), 1)
    previous = g
    x = step(x, corrected)
    return x, previous
