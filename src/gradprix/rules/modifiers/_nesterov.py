"""Nesterov momentum: the direction is computed from the momentum one step ahead."""

from gradprix.rules._rule import Rule
from gradprix.rules.ir import Assign, Tree

from ._algebra import choose, decays, map_values, rename
from ._composition import unmodified
from ._modifier import modifier

DECAYS = ("beta1", "momentum")
"""Names of the decay rates of momentum; other running means, as of squared gradients, decay with another one."""
HAVE_NESTEROV = ("nadam", "adan")
"""Rules that look ahead in a form of their own."""


@modifier(
    "Dozat 2016, ICLR workshop OM0jvwB8jIp57ZJjtNEZ, without schedule and with the bias correction of NAdamW in "
    "Dahl et al. 2023, arXiv:2306.07179",
    relation="Equal to {base} if its momentum is 0.",
)
def nesterov(base: Rule) -> Tree:
    """Uses the momentum after a second update with the same gradient, which looks one step ahead."""
    if unmodified(base).name in HAVE_NESTEROV:
        raise ValueError(f"{base.name} has Nesterov momentum already")
    tree = map_values(base.tree, lambda node: choose(node, {"nesterov": False}))
    place = _find_momentum(tree)
    if place is None:
        raise ValueError(f"{base.name} has no momentum, that is no state that decays with beta1 or momentum")
    momentum = tree.assigns[place]
    ahead = f"{momentum.name}_ahead"
    later = (
        Assign(each.name, rename(each.value, {momentum.name: ahead}), each.line) for each in tree.assigns[place + 1 :]
    )
    assigns = (*tree.assigns[: place + 1], Assign(ahead, momentum.value, momentum.line), *later)
    return Tree(tree.state, assigns, tree.returns)


def _find_momentum(tree: Tree) -> int | None:
    """Return the index of the assignment that updates the momentum, or None."""
    for i, assign in enumerate(tree.assigns):
        if assign.name in tree.state and any(decays(assign.value, name, {assign.name}) for name in DECAYS):
            return i
    return None
