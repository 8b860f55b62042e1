"""Construction of a modified rule from a base rule and a modifier."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

from gradprix.rules._form import check_form
from gradprix.rules._rule import PREPROCESSING, Rule
from gradprix.rules.codegen import compile_function, to_source
from gradprix.rules.ir import Tree

from ._algebra import decays, hyperparameters_in, identifiers, rename_tree
from ._splicing import moves_weights, splice

if TYPE_CHECKING:
    from ._modifier import Modifier


@cache
def compose(modifier: "Modifier", base: Rule, given: tuple[tuple[str, float | bool], ...]) -> Rule:
    """Return a modified rule.

    Args:
        modifier: the modifier.
        base: the rule to modify.
        given: defaults for hyperparameters of the result, by name with or without the prefix of the modifier.

    Raises:
        TypeError: if the result has no such hyperparameter.
        ValueError: if the modifier cannot be applied to this base, or a value is outside its range.
    """
    name = format_call(modifier.name, base.name, given)
    try:
        _check_base(modifier, base)
        names = _unused_names(modifier, base)
        tree = modifier.function(base) if modifier.tree is None else splice(rename_tree(modifier.tree, names), base)
    except ValueError as error:
        raise ValueError(f"{name}: {error}.") from None
    state = {**base.state, **{names.get(own, own): spec for own, spec in modifier.state.items()}}
    check_form(f"{name}: ", tree, state)
    evaluation = base.evaluation if modifier.evaluation is None else rename_tree(modifier.evaluation, names)
    space = dict(base.space)
    if "decoupled_weight_decay" in tree.conditions:
        space["weight_decay"] = base.axes["weight_decay"]  # the tree adds it to the gradient, as for the base
    rule = Rule(
        name=name,
        function=compile_tree(name, tree),
        source=f"{modifier.source}; {base.name}: {base.source}",
        summary=f"{base.summary} {modifier.summary}",
        relation=modifier.relation.format(base=base.name),
        hyperparameters=_hyperparameters(modifier, base, tree),
        state=state,
        space=space,
        tree=tree,
        scope=base.scope,
        domains={**base.domains, **modifier.domains},
        evaluate=modifier.evaluate or base.evaluate,
        evaluation=evaluation,
        tuned=base.tuned,
        tuples=base.tuples,
        composition=(modifier, base, given),
    )
    return replace(rule, hyperparameters=rule.values(**{modifier.full_name(key): value for key, value in given}))


def format_call(name: str, base: str, given: tuple[tuple[str, float | bool], ...]) -> str:
    """Format the application of a modifier, as `clipped(adam, norm=1)`."""
    values = (f"{key}={value}" if isinstance(value, bool) else f"{key}={value:g}" for key, value in given)
    return f"{name}({', '.join([base, *values])})"


def unmodified(rule: Rule) -> Rule:
    """Return the rule that a modified rule was made from, through all modifiers; other rules are returned unchanged."""
    return rule if rule.composition is None else unmodified(rule.composition[1])


def _is_applied(modifier: "Modifier", rule: Rule) -> bool:
    """Return True if a rule was made by a modifier, among others."""
    return rule.composition is not None and (
        rule.composition[0] is modifier or _is_applied(modifier, rule.composition[1])
    )


def _check_base(modifier: "Modifier", base: Rule) -> None:
    """Raise ValueError if a modifier cannot be applied to a base, whatever its tree."""
    if _is_applied(modifier, base):
        raise ValueError(f"{modifier.name} is applied already")
    if base.evaluation is not None and modifier.evaluation is not None:
        raise ValueError(f"{base.name} is already evaluated at another point than its weights")
    if base.evaluation is not None and modifier.tree is not None and moves_weights(modifier.tree):
        raise ValueError(
            f"{base.name} computes its evaluation point from the weights and its state, so its weights must not be "
            "moved otherwise. Apply the modifier that changes the evaluation point last"
        )
    if repeated := modifier.hyperparameters.keys() & base.hyperparameters.keys() - PREPROCESSING.keys():
        raise ValueError(f"{base.name} already has a hyperparameter {', '.join(sorted(repeated))}")
    for hyperparameter, reason in modifier.needs.items():
        if not any(decays(assign.value, hyperparameter, base.state) for assign in base.tree.assigns):
            raise ValueError(f"{base.name} has no state that decays with {hyperparameter}, and {reason}")


def _unused_names(modifier: "Modifier", base: Rule) -> dict[str, str]:
    """Return new names for those names of a modifier that the base uses as well."""
    taken = identifiers(base.tree) - {"t", "x", "g"}
    own = identifiers(modifier.tree) if modifier.tree else set(modifier.state)
    return {name: _number(name, taken | own) for name in sorted(own & taken)}


def _number(name: str, taken: Collection[str]) -> str:
    """Return a name with the first number from 2 on that makes it unused."""
    return next(new for n in count(2) if (new := f"{name}_{n}") not in taken)


def _hyperparameters(modifier: "Modifier", base: Rule, tree: Tree) -> Mapping[str, float | bool]:
    """Return the defaults of a modified rule: those of the base that are in use, its own, and the preprocessing's."""
    assigns = (*tree.assigns, *(base.evaluation.assigns if base.evaluation else ()))
    used = {name for assign in assigns for name in hyperparameters_in(assign.value)}
    used |= {value for spec in base.state.values() for value in vars(spec).values() if isinstance(value, str)}
    kept = {n: value for n, value in base.hyperparameters.items() if n not in PREPROCESSING and n in used | {"lr"}}
    zeros: dict[str, float | bool] = {name: 0.0 for name in modifier.disabled if name in kept}
    rest = {name: base.hyperparameters[name] for name in PREPROCESSING}
    return {**kept, **zeros, **modifier.hyperparameters, **rest}


def compile_tree(name: str, tree: Tree) -> Callable[..., Any]:
    """Return the Python function of a rule, which computes what its tree says."""
    lines = [f"{assign.name} = {to_source(assign.value)}" for assign in tree.assigns]
    lines.append(f"return ({', '.join(tree.returns)},)")
    return compile_function(name, ("h", "t", "x", "g", *tree.state), lines)
