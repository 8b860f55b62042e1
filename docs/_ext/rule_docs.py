"""Blocks of the page of a rule: source, signature, equations, defaults, state and search space."""

import inspect
import textwrap
from collections.abc import Callable, Iterable

import path_docs
from difference_docs import differences
from hyperparameter_docs import MEANING
from markdown_docs import code, linked, number, table

from gradprix import optim, rules
from gradprix.optim.variants import option_defaults, with_options
from gradprix.race import BRACKETS, ENTRIES, Entry
from gradprix.rules import PREPROCESSING, Rule, State
from gradprix.rules._rule import ANY, DOMAINS
from gradprix.rules.notation import format_expression, format_symbol

SIZES = {
    "element": "one per weight",
    "scalar": "one per parameter",
    "vector": "one per weight of a vector",
    "rows": "one per row",
    "columns": "one per column",
    "rows×rows": "rows × rows of a matrix",
    "columns×columns": "columns × columns of a matrix",
}
"""Size of a state variable, by its kind."""


def head(rule: Rule) -> str:
    """Return the summary of a rule, its relation to a similar one, its source and its class."""
    source = f"*Source:* {linked(rule.source)}."
    return f"{rule.summary}\n\n*Relation:* {rule.relation}\n\n{source}\n\n{signature(rule)}"


def signature(rule: Rule) -> str:
    """Return the signature of the class."""
    cls = optim.from_rule(rule)
    call = f"{cls.__name__}{inspect.signature(cls)}"
    known = cls.__name__ in optim.__all__
    call = call if known else call.replace(cls.__name__, f"from_rule({rule.name})", 1)
    return code("\n".join(textwrap.wrap(f"optim.{call}", 84, subsequent_indent=" " * 6)), kind="signature")


def formula(rule: Rule) -> str:
    """Return the equations at the defaults, and with each option, with the changed lines marked."""
    plain = rules.formula(rule)
    blocks = [code("\n".join(plain))]
    shown = [(caption, rule, given) for caption, given in variants(rule)]
    for caption, form, given in (*shown, *option_variants(rule)):
        lines = rules.formula(form, **given)
        changed = [i for i, line in enumerate(lines, 1) if line not in plain]
        blocks.append(code("\n".join(lines), f"With {caption}", changed))
    return "\n\n".join([*blocks, *evaluation_point(rule)])


def evaluation_point(rule: Rule) -> list[str]:
    """Return the equation of the evaluation point, if the rule has one, as a list of at most one block."""
    if rule.evaluation is None:
        return []
    lines = [f"{format_symbol(assign.name)} ← {format_expression(assign.value)}" for assign in rule.evaluation.assigns]
    text = "\n".join(lines or map(format_symbol, rule.evaluation.returns))
    return [code(text, "Evaluation point of the model, after `eval()`")]


def modified(rule: Rule) -> str:
    """Return the relation of a modified rule to its base, the source of the modifier, and the equations."""
    assert rule.composition is not None
    source = linked(rule.composition[0].source)
    about = f"*Relation:* {rule.relation}\n\n*Source:* {source}."
    return "\n\n".join([about, code("\n".join(rules.formula(rule)), f"`{rule.name}`"), *evaluation_point(rule)])


def variants(rule: Rule) -> list[tuple[str, dict[str, float | bool]]]:
    """Return the options that can be enabled, with their requirements: `momentum`, then `nesterov` with momentum."""
    off = [name for name in rule.hyperparameters if name in rule.tree.conditions and not rule.hyperparameters[name]]
    numbers = [name for name in off if not isinstance(rule.hyperparameters[name], bool)]
    gates = {name: 0.9 for name in numbers if any(state.when == name for state in rule.state.values())}
    plain, options = rules.formula(rule), []
    for name in off:
        _, high = rule.domains.get(name) or DOMAINS.get(name, ANY)
        nonzero = gates.get(name, 1.0 if high > 1 else 0.5)
        given: dict[str, float | bool] = {name: True if name in rule.options else nonzero}
        needs = gates and name not in gates and (_modifies(rule, name, gates) or rules.formula(rule, **given) == plain)
        given = {**gates, **given} if needs else given
        caption = ", ".join(f"`{key}={value}`" if value is True else f"`{key}` above 0" for key, value in given.items())
        options.append((caption, given))
    return options


def option_variants(rule: Rule) -> list[tuple[str, Rule, dict[str, float]]]:
    """Return the variants that options of the class select, each with a caption and the values that it is shown at."""
    gates = dict(gate for _, given in variants(rule) for gate in given.items() if gate[0] in _gates(rule))
    plain, shown = rules.formula(rule), []
    for name, value in option_defaults(rule).items():
        form = with_options(rule, {name: True})
        needs = bool(gates) and (any(gate in name for gate in gates) or rules.formula(form) == plain)
        given = gates if needs else {}
        given = given if value is False else {**given, name: 1.0}
        own = f"`{name}=True`" if value is False else f"`{name}` above 0"
        caption = ", ".join([*(f"`{gate}` above 0" for gate in gates if needs), own])
        shown.append((caption, form, given))
    return shown


def _gates(rule: Rule) -> set[str]:
    """Return the numbers that enable state."""
    return {state.when for state in rule.state.values() if state.when and state.when not in rule.options}


def _modifies(rule: Rule, option: str, gates: Iterable[str]) -> bool:
    """Return whether an option modifies a term that a number enables, judged by its name or its expressions."""
    texts = [repr(assign.value) for assign in rule.tree.assigns if f"Choice(option={option!r}" in repr(assign.value)]
    return any(gate in option or any(f"Hyper(name={gate!r})" in text for text in texts) for gate in gates)


def defaults(rule: Rule) -> str:
    """Return a table of the arguments with their defaults and allowed values."""
    rows = []
    for name, value in {**rule.hyperparameters, **option_defaults(rule)}.items():
        letter = format_symbol(name) if name not in PREPROCESSING or rule.owns_weight_decay else ""
        letter = "" if letter == name or isinstance(value, bool) else letter
        rows.append((f"`{name}`", letter, f"`{number(value)}`", allowed(rule, name), meaning(rule, name)))
    note = ""
    for argument, names in rule.tuple_arguments.items():
        note += f"\n\nThe class takes {', '.join(f'`{part}`' for part in names)} together as `{argument}`."
    return table(("hyperparameter", "symbol", "default", "allowed", "meaning"), rows) + note


def meaning(rule: Rule, name: str) -> str:
    """Return the meaning of a hyperparameter of a rule."""
    return MEANING.get(f"{rule.name}.{name}", MEANING.get(name, ""))


def allowed(rule: Rule, name: str) -> str:
    """Format the allowed values of a hyperparameter."""
    if isinstance({**rule.hyperparameters, **option_defaults(rule)}[name], bool):
        return "True or False"
    low, high = rule.domains.get(name) or DOMAINS.get(name, ANY)
    return f"{low:g} ≤ · < {high:g}" if high < float("inf") else f"{low:g} and up"


def state(rule: Rule) -> str:
    """Return a table of the state variables."""
    held = rule.memory(rule.values())
    most = rule.memory(rule.values(**dict.fromkeys(rule.options, True)) | _nonzero(rule))
    text = f"{_count(held, 'number')} per weight at the defaults"
    text += f", {most} with all options." if most > held else "."
    if not rule.state:
        return text
    rows = [
        (
            format_symbol(name),
            f"`{spec.key}`",
            _size(spec),
            _start(spec),
            f"`{spec.when}`" if spec.when else "always",
        )
        for name, spec in rule.state.items()
    ]
    return text + "\n\n" + table(("symbol", "key in a checkpoint", "size", "initial value", "exists with"), rows)


def _nonzero(rule: Rule) -> dict[str, float]:
    return {spec.when: 0.5 for spec in rule.state.values() if spec.when and spec.when not in rule.options}


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}" if n else f"No {what}"


def _size(spec: State) -> str:
    """Describe the size of a state variable."""
    return "one per group" if spec.shared else SIZES[spec.kind] + (f", up to `{spec.limit}`" if spec.limit else "")


def _start(spec: State) -> str:
    start = {"x": "the weight", "g": "the first gradient"}
    return start.get(spec.init, f"`{spec.init}`") if isinstance(spec.init, str) else f"{spec.init:g}"


def space(rule: Rule) -> str:
    """Return the search space in a race and the entries."""
    ranges = ", ".join(
        f"`{name}` from {axis.from_unit(0):g} to {axis.from_unit(1):g}" for name, axis in rule.space.items()
    )
    text = f"Logarithmic search space: {ranges}."
    try:
        raced = Entry("any", rule).rule
    except ValueError as error:
        return f"{text} It cannot be raced yet: {str(error).partition(': ')[2]}"
    entries = [entry for entry in ENTRIES.values() if entry.rule == raced]
    if not entries:
        return text
    rows = []
    for entry in entries:
        low, high = entry.space["lr"].low, entry.space["lr"].high
        fixed = ", ".join(f"`{name}={value}`" for name, value in entry.fixed.items())
        batch = {None: "the task's", 0: "all examples"}.get(entry.batch_size, str(entry.batch_size))
        default = "yes" if entry.name in BRACKETS["rules"] else "no"
        rows.append((f"`{entry.name}`", fixed or "none", f"{low:g} to {high:g}", batch, default))
    return f"{text}\n\n" + table(("entry", "fixed", "`lr`", "batch size", "in the default race"), rows)


BLOCKS: dict[str, Callable[[Rule], str]] = {
    "head": head,
    "path": path_docs.path,
    "formula": formula,
    "defaults": defaults,
    "state": state,
    "space": space,
    "differences": differences,
}
"""Generated parts of the page of a rule."""
