"""Division of a rule into its direction and its weight decay."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

from gradprix.rules._rule import Rule
from gradprix.rules.ir import Assign, Call, Hyper, Name, Node, Number, names

from ._algebra import NonlinearError, map_values, power_of_lr, substitute

X, LR = Name("x"), Hyper("lr")
PER_LR: Mapping[Node, Node] = {LR: Number(1)}
WITHOUT_DECAY: Mapping[Node, Node] = {Hyper("weight_decay"): Number(0)}


@dataclass(frozen=True)
class DividedRule:
    """A rule, divided into its direction and its weight decay.

    Args:
        assigns: assignments of the rule without those to the parameter.
        direction: step of the rule per learning rate, in terms of what `assigns` assign.
        decay: values of the parameter after weight decay, in terms of `x`, to apply one after the other.
    """

    assigns: tuple[Assign, ...]
    direction: Node
    decay: tuple[Node, ...]


@cache
def divide(base: Rule, with_decay: bool) -> DividedRule:
    """Divide a rule into its direction and its weight decay.

    Args:
        base: the rule.
        with_decay: False to remove the weight decay, wherever the rule applies it.

    Raises:
        ValueError: if a step of the rule is not the learning rate times a direction.
    """
    tree = base.tree if with_decay else map_values(base.tree, partial(substitute, replacements=WITHOUT_DECAY))
    assigns, decay, steps = list[Assign](), list[Node](), list[Node]()
    for assign in tree.assigns:
        if steps and "x" in names(assign.value) and assign.name != "x":
            raise ValueError(f"the state of {base.name} depends on the weights after its step")
        if assign.name != "x":
            assigns.append(assign)
            continue
        step, shrunken = _divide_move(base, assign.value)
        steps += [] if step is None else [step]
        decay += [] if shrunken is None else [shrunken]
    if len(steps) != 1:
        raise ValueError(f"{base.name} moves the weights {len(steps)} times in a step")
    proportional = _check_linear(base, tree.state, assigns, steps[0])
    in_full: dict[Node, Node] = {Name(name): Call("*", (LR, Name(name))) for name in proportional}
    return DividedRule(
        tuple(replace(assign, value=substitute(assign.value, PER_LR)) for assign in assigns),
        substitute(steps[0], PER_LR),
        tuple(substitute(value, in_full) for value in decay),
    )


def _divide_move(base: Rule, value: Node) -> tuple[Node | None, Node | None]:
    """Divide an assignment to the parameter into a step, which is subtracted from it, and weight decay."""
    without = substitute(value, WITHOUT_DECAY)
    match value, without:
        case _, Name("x"):
            return None, value
        case Call("-", (Name("x"), step)), _:
            return step, None
        case _, Call("-", (Name("x"), step)):
            shrunken = substitute(value, {without: X})
            if shrunken != value:
                return step, shrunken
    raise ValueError(f"{base.name} does not move the weights by the learning rate times a direction")


def _check_linear(base: Rule, state: tuple[str, ...], assigns: Iterable[Assign], step: Node) -> set[str]:
    """Check that a step is proportional to the learning rate, and that state does not depend on it.

    Returns:
        The assigned names that are proportional to the learning rate.
    """
    powers: dict[str, int | None] = {}
    try:
        for assign in assigns:
            powers[assign.name] = power_of_lr(assign.value, powers)
        linear = power_of_lr(step, powers) == 1 and not any(powers.get(name) for name in state)
    except NonlinearError:
        linear = False
    if not linear:
        raise ValueError(f"a step of {base.name} is not proportional to the learning rate")
    return {name for name, power in powers.items() if power}
