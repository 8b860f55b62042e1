"""Nesterov momentum: the direction is computed from the momentum one step ahead."""

from gradprix.rules._rule import Rule
from gradprix.rules.ir import Assign, Tree, names

from ._algebra import choose, decays, map_values, rename
from ._composition import unmodified
from ._modifier import modifier

DECAYS = ("beta1", "momentum")
"""Names of the decay rates of momentum; other running means, as of squared gradients, decay with another one."""
REFUSED = {
    "nadam": "has Nesterov momentum already",
    "adan": "has Nesterov momentum already",
    "ademamix": "has two momenta, and only one of them would look ahead",
    "aggmo": "has several momenta, and only one of them would look ahead",
}
"""Rules for which a look-ahead of the momentum has no defined meaning, with the reasons."""


@modifier(
    "Dozat 2016, ICLR workshop OM0jvwB8jIp57ZJjtNEZ, without schedule and with the bias correction of NAdamW in "
    "Dahl et al. 2023, arXiv:2306.07179",
    relation="Equal to {base} if its momentum is 0.",
)
def nesterov(base: Rule) -> Tree:
    """Uses the momentum after a second update with the same gradient, which looks one step ahead."""
    if reason := REFUSED.get(unmodified(base).name):
        raise ValueError(f"{base.name} {reason}")
    tree = map_values(base.tree, lambda node: choose(node, {"nesterov": False}))
    place = _find_momentum(tree)
    if place is None:
        raise ValueError(f"{base.name} has no momentum, that is no state that decays with beta1 or momentum")
    momentum = tree.assigns[place]
    ahead = f"{momentum.name}_ahead"
    new = {momentum.name: ahead}
    later = [
        assign if assign.name in tree.state else Assign(assign.name, rename(assign.value, new), assign.line)
        for assign in tree.assigns[place + 1 :]
    ]
    if not any(ahead in names(assign.value) for assign in later):
        raise ValueError(f"the momentum of {base.name} is not a part of its step")
    look = Assign(ahead, momentum.value, momentum.line)
    return Tree(tree.state, (*tree.assigns[: place + 1], look, *later), tree.returns)


def _find_momentum(tree: Tree) -> int | None:
    """Return the index of the assignment that updates the momentum, or None."""
    for i, assign in enumerate(tree.assigns):
        if assign.name in tree.state and any(decays(assign.value, name, {assign.name}) for name in DECAYS):
            return i
    return None
