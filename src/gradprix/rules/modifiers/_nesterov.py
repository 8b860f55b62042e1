"""Nesterov momentum: the direction is computed from the momentum one step ahead."""

from gradprix.rules._rule import Rule
from gradprix.rules.ir import Assign, Call, Hyper, Name, Tree, walk

from ._algebra import choose, map_values, rename
from ._composition import unmodified
from ._modifier import modifier

DECAYS = (Hyper("beta1"), Hyper("momentum"))
"""Decay rates of momentum; other running means, such as that of squared gradients, have other names for theirs."""
HAVE_NESTEROV = ("nadam", "adan")
"""Rules that look ahead in a form of their own."""


@modifier(
    "Dozat 2016, ICLR workshop OM0jvwB8jIp57ZJjtNEZ, without schedule and with the bias correction of NAdamW in "
    "Dahl et al. 2023, arXiv:2306.07179",
    relation="{base} if its momentum is 0; otherwise {base} with a look-ahead of one momentum step.",
)
def nesterov(base: Rule) -> Tree:
    """Uses the momentum after a second update with the same gradient, which looks one step ahead."""
    if unmodified(base).name in HAVE_NESTEROV:
        raise ValueError(f"{base.name} has Nesterov momentum already")
    tree = map_values(base.tree, lambda node: choose(node, {"nesterov": False}))
    place = next((i for i, assign in enumerate(tree.assigns) if _is_momentum(assign, tree.state)), None)
    if place is None:
        raise ValueError(f"{base.name} has no momentum, that is no state that decays with beta1 or momentum")
    momentum = tree.assigns[place]
    ahead = f"{momentum.name}_ahead"
    later = (
        Assign(each.name, rename(each.value, {momentum.name: ahead}), each.line) for each in tree.assigns[place + 1 :]
    )
    assigns = (*tree.assigns[: place + 1], Assign(ahead, momentum.value, momentum.line), *later)
    return Tree(tree.state, assigns, tree.returns)


def _is_momentum(assign: Assign, state: tuple[str, ...]) -> bool:
    decayed = [Call("*", (decay, Name(assign.name))) for decay in DECAYS]
    return assign.name in state and any(node in decayed for node in walk(assign.value))
