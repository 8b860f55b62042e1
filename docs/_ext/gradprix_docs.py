"""Sphinx extension: content that is generated from rules, measurements and docstrings.

The functions return Markdown, which the directives insert. In a page:

    ```{rule} adam formula
    ```

inserts one of `BLOCKS` for a rule, `{measured}` a table of `MEASURED`, and `{api}` the public names of a module. The
role `{value}` and the directive `{numbers}` (`measured_values.py`) insert single numbers.
"""

import ast
import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cluster_docs
import command_docs
import compatibility_docs
import measured_values
import modifier_docs
import numpy as np
import path_docs
import suite_docs
import suite_entry_docs
import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from suite_docs import plain, table

from gradprix import optim, rules, tasks
from gradprix.claims import RESULTS, format_counts, load_results
from gradprix.optim import _compat
from gradprix.optim.variants import option_defaults, with_options
from gradprix.race import BRACKETS, ENTRIES, SEEDS, TRIALS, Entry
from gradprix.rules import PREPROCESSING, Modifier, Rule, State
from gradprix.rules._rule import ANY, DOMAINS
from gradprix.rules.notation import format_expression, format_symbol

ROOT = Path(__file__).resolve().parents[2]
AA_TESTS = ROOT / "studies" / "aa_tests.json"
REPETITIONS = ROOT / "studies" / "repetitions.json"
TUNED_HYPERPARAMETERS = ROOT / "studies" / "tuned_hyperparameters.json"
MUON_GAIN = ROOT / "studies" / "muon_gain.json"
STEP = ROOT / "benchmarks" / "step.json"
RACE = ROOT / "benchmarks" / "race.json"
PEERS = ROOT / "benchmarks" / "peers.json"
OTHER_OPTIMIZERS = ROOT / "studies" / "other_optimizers.json"
DIFFERENCES = ROOT / "tests" / "recordings" / "differences.json"

MEANING = {
    "lr": "learning rate",
    "beta1": "decay of the running mean of gradients",
    "beta2": "decay of the second running mean",
    "beta3": "decay of the third running mean",
    "alpha": "decay of the mean square",
    "rho": "decay of the mean squares",
    "eps": "keeps the denominator from zero",
    "momentum": "decay of the sum of past gradients; 0 for none",
    "ns_a": "coefficient of s in the Newton-Schulz iteration, for singular values s",
    "ns_b": "coefficient of s³",
    "ns_c": "coefficient of s⁵",
    "ns_steps": "steps of the Newton-Schulz iteration",
    "match_rms_adamw": "scale steps to the root mean square of AdamW's",
    "dampening": "reduction of the newest gradient in the momentum",
    "nesterov": "Nesterov momentum, which looks one step ahead",
    "weight_decay": "pull of the weights towards zero",
    "decoupled_weight_decay": "decay shrinks the weights themselves, not through the gradient",
    "maximize": "maximize the objective instead of minimizing it",
    "amsgrad": "the second moment never decreases",
    "centered": "divide by the standard deviation of the gradients, not by their root mean square",
    "lr_decay": "the learning rate also decays as 1 / (1 + (t − 1) · lr_decay)",
    "initial_accumulator_value": "initial value of the sum of squares",
    "momentum_decay": "speed at which the momentum rises to its full value; larger is faster",
    "eps_inside_sqrt": "ε is added under the root",
    "eps_before_correction": "ε is added before the bias correction of the second moment",
    "eps_after_correction": "ε is added after the bias correction of the second moment",
    "eps_after_max": "ε is added to the maximum, not inside it",
    "lr_inside_momentum": "the learning rate is applied before the momentum, so that its changes take effect gradually",
    "dampen_first": "the first gradient is dampened like the others",
    "correct_before_max": "the maximum is taken of bias-corrected values",
    "correct_second_moment": "the bias correction applies to the second moment instead of the learning rate",
    "uncorrected": "no bias correction",
    "full_lr": "decay is multiplied by lr / full_lr instead of lr; 0 for lr itself",
    "scheduled_mean": "the running mean uses the scheduled momentum, not β₁",
    "decay_after_correction": "the bias-corrected second moment is multiplied by β₂",
    "rectify_above_four": "rectification begins at ρ > 4, not ρ > 5",
    "warmup_steps": "steps of the linear warmup; 0 for none",
    "r": "the weight of step t in the average grows as t to this power",
    "interpolation": "weight of the average in the point at which gradients are taken; 1 minus that of the iterate",
    "ema_decay": "weight of the previous average in the moving average",
    "ema_warmup": "the weight of the previous average starts small: at most (1 + t) / (10 + t)",
    "lookahead_steps": "steps between two moves of the slow weights",
    "lookahead_alpha": "fraction by which the slow weights move",
    "mars_gamma": "scale of the correction by the difference of gradients",
    "max_norm": "largest norm of the gradients of a parameter group; 0 for no limit",
    "max_value": "largest absolute value of an element of the gradient; 0 for no limit",
    "max_ratio": "largest ratio of the norm of a tensor's gradient to that of the tensor; 0 for no limit",
    "weight_lr_power": "the weight of a step grows as its largest learning rate so far to this power",
    "etaminus": "factor of the step size after a change of sign",
    "etaplus": "factor of the step size while the sign stays the same",
    "step_size_min": "smallest step size",
    "step_size_max": "largest step size",
    "lambd": "weight decay, and speed at which the learning rate decreases",
    "t0": "step after which iterates are averaged",
    "nu": "share of the running mean in the step; the rest is the newest gradient",
    "nu1": "share of the running mean in the numerator; the rest is the newest gradient",
    "nu2": "share of the running mean of squares in the denominator; the rest is the newest square",
    "kappa": "ratio of long and short steps",
    "xi": "weight of the long steps",
    "small_const": "constant below 1 in the ratio of long and short steps",
    "delta": "weight of the sum of squares in the numerator",
    "final_lr": "learning rate of SGD in the limit, at the learning rate `base_lr`",
    "base_lr": "learning rate that `final_lr` belongs to",
    "gamma": "speed at which the bounds converge",
    "amplification": "weight of the slow average that is added to the gradient",
    "trust_coefficient": "length of a step relative to the weights, at a learning rate of 1",
    "beta2_decay": "exponent p of the decay rate 1 − tᵖ of the second moment",
    "eps1": "keeps the second moment from zero; 0 for the machine epsilon",
    "eps2": "smallest size of the weights that steps are relative to",
    "d": "largest root mean square of a step, before multiplication by the learning rate",
    "precondition_frequency": "number of steps between updates of the preconditioner",
    "max_precond_dim": "largest number of rows or columns that gets a preconditioner",
    "shampoo_beta": "decay of the preconditioner; 0 for β₂",
    "came.eps1": "keeps the second moment from zero",
    "came.eps2": "keeps the moment of the distance from zero",
    "ademamix.alpha": "weight of the slow momentum",
    "asgd.alpha": "exponent of the decrease of the learning rate",
    "grokfast_adamw.alpha": "decay of the slow average of gradients",
    "aggmo.beta1": "decay of the first momentum",
    "aggmo.beta2": "decay of the second momentum",
    "aggmo.beta3": "decay of the third momentum",
    "pnm.beta2": "weight of the older momentum, which is subtracted",
    "adamod.beta3": "decay of the running mean of learning rates",
    "rprop.lr": "initial step size",
    "yogi.initial_accumulator_value": "initial value of the second moment",
    "novograd.beta2": "decay of the running squared norm of each tensor's gradient",
    "grad_averaging": "the momentum is a running mean instead of a sum",
    "reps_rel": "initial distance, relative to one plus the norm of the weights",
    "d0": "initial estimate of the distance, smaller than the distance",
    "d_coef": "factor of the estimated distance",
    "growth_rate": "largest factor by which the estimate grows in a step; 0 for no limit",
    "use_bias_correction": "bias correction as in Adam",
    "safeguard_warmup": "the estimate does not depend on the learning-rate schedule",
    "dog.lr": "multiplier of the estimated learning rate",
    "dadapt_adam.lr": "multiplier of the estimated learning rate",
    "prodigy.lr": "multiplier of the estimated learning rate",
    "dog.eps": "initial value of the sum of squared norms",
}
"""Meaning of each hyperparameter, by its name, or by those of rule and hyperparameter, which takes precedence."""
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
SAME = 1e-12
"""Largest relative difference that counts as rounding."""


def code(text: str, caption: str = "", emphasized: Iterable[int] = (), kind: str = "formula") -> str:
    """Return a block of preformatted text."""
    lines = [f"```{{code-block}} {'python' if kind == 'signature' else 'text'}", f":class: {kind}"]
    lines += [f":caption: {caption}"] if caption else []
    numbers = ",".join(map(str, emphasized))
    lines += [f":emphasize-lines: {numbers}"] if numbers else []
    return "\n".join([*lines, "", text, "```"])


def number(value: Any) -> str:
    """Format a value as source code."""
    if isinstance(value, tuple | list):
        return f"({', '.join(map(number, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def head(rule: Rule) -> str:
    """Return the summary of a rule, its relation to a similar one, its source and its class."""
    source = f"*Source:* {linked(rule.source)}."
    return f"{rule.summary}\n\n*Relation:* {rule.relation}\n\n{source}\n\n{signature(rule)}"


def linked(source: str) -> str:
    """Convert the arXiv and DOI numbers of a source to links."""
    source = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)
    return re.sub(r"doi:(10\.[^\s;,]+\w(?:\)\d+-\d)?)", r"[doi:\1](https://doi.org/\1)", source)


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


def differences(rule: Rule, file: Path = DIFFERENCES) -> str:
    """Return the differences of other libraries' classes of this name: defaults, options and measured size."""
    parts = []
    presets = {name: forms for name, forms in _compat.LIKE.items() if name.split()[0] == rule.name}
    if presets:
        rows = []
        for name, forms in presets.items():
            option = "".join(f" with `{part}=True`" for part in name.split()[1:])
            for library, form in forms.items():
                rows.append((f"`like={library!r}`{option}", form if isinstance(form, str) else _preset(rule, form)))
        parts.append("`like=` selects the arithmetic and defaults of another library:")
        parts.append(table(("", "changes from torch's defaults"), rows))
    record = json.loads(file.read_text()) if file.exists() else {}
    cls = optim.from_rule(rule).__name__
    rows = [row for row in record.get("rows", []) if row["class"] == cls]
    if rows:
        parts.append(_measured(rows, record))
    if not parts:
        lacking = "" if hasattr(torch.optim, cls) else f"`torch.optim` has no `{cls}`. "
        return f"{lacking}Other libraries' classes of this name have not been measured."
    return "\n\n".join(parts)


def _preset(rule: Rule, form: Mapping[str, Any]) -> str:
    """Describe the changes of a preset."""
    words = {_compat.REQUIRED: "`{}` must be given", _compat.SAME_AS_LR: "`{}` is the initial learning rate"}
    words |= {_compat.TINY: "no ε", _compat.CONSTANT: "constant momentum (`{}` = 1e6)"}
    plain = {**rule.hyperparameters, "betas": tuple(rule.hyperparameters[beta] for beta in rule.betas)}
    changed = [(name, value) for name, value in form.items() if plain.get(name) != value]
    descriptions = [
        words[value].format(name) if isinstance(value, str | float) and value in words else f"`{name}={number(value)}`"
        for name, value in changed
    ]
    return ", ".join(descriptions) or "none"


def _measured(rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> str:
    scales = [number(float(scale)) for scale in record["scales"]]
    names = {**_compat.LIBRARIES, "paper": "the paper"}
    lines, same = [], dict[str, list[str]]()
    for row in rows:
        given = ", ".join(f"`{name}={number(value)}`" for name, value in row["given"].items())
        falls = "learning rate divided by ten halfway" if row.get("lr falls") else ""
        case = "; ".join(part for part in (given, falls) if part) or "defaults"
        against = f"{names.get(row['like'], row['like'])}, {row['with']}"
        if all(value is not None and value < SAME for value in row["difference"]):
            same.setdefault(against, []).append(f"({case})")
        else:
            lines.append((against, case, *(f"{value:.2g}" for value in row["difference"])))
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    about = (
        "Measured: relative difference of the total update from that of `torch.optim`, after 100 steps in float64 with "
        f"the same gradients, of size {', '.join(scales[:-1])} and {scales[-1]}."
    )
    parts = [about]
    if lines:
        parts.append(table(("implementation", "case", *(f"gradients of {scale}" for scale in scales)), lines))
    if same:
        lines = "\n".join(f"* {against}: {', '.join(cases)}" for against, cases in same.items())
        parts.append(f"Equal to torch up to rounding (below {SAME:g}):\n\n{lines}")
    return "\n\n".join([*parts, f"`{record['command']}`, {versions}."])


def every(rules_: Mapping[str, Rule] | None = None) -> str:
    """Return a table of all rules."""
    rows = []
    for rule in (rules_ or rules.ALL).values():
        name = f"[{optim.from_rule(rule).__name__}](/optimizers/{rule.name}.md)"
        rows.append((name, rule.summary, str(rule.memory(rule.values())), f"`{number(rule.hyperparameters['lr'])}`"))
    return table(("class", "description", "state per weight", "default `lr`"), rows)


def papers() -> dict[str, list[Rule]]:
    """Return the rules of each paper, by its authors and year. A rule belongs to the first paper of its source."""
    found: dict[str, list[Rule]] = {}
    for rule in rules.ALL.values():
        found.setdefault(re.match(r".*?\d{4}", rule.source)[0], []).append(rule)
    return found


def paper_table() -> str:
    """Return a table of the papers with their optimizers, and what these are compared with step by step."""
    rows = []
    for paper, members in sorted(papers().items(), key=lambda item: item[0][-4:]):
        classes = [optim.from_rule(rule) for rule in members]
        pages = [f"[{cls.__name__}](/optimizers/{cls.rule.name}.md)" for cls in classes]
        address = re.search(r"arXiv:\d+\.\d+|doi:10\.[^\s;,]+\w|https://[^\s;,]+", members[0].source.split(";")[0])
        equals = [cls for cls in classes if issubclass(cls, getattr(torch.optim, cls.__name__, ()))]
        shared = [f"`torch.optim.{cls.__name__}`" for cls in equals]
        reference = ", ".join(shared) or "a transcription"
        rows.append((paper, linked(address[0]) if address else "", ", ".join(pages), reference))
    return f"{len(rows)} papers:\n\n{table(('paper', '', 'optimizers', 'equal, step by step, to'), rows)}"


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


def aa_tests_table(file: Path = AA_TESTS) -> str:
    """Return the results of the A/A tests as a table, with their command."""
    record = json.loads(file.read_text())
    rows = [
        (f"races on `{name}`", str(len(races)), str(sum(bool(row["false"]) for row in races)))
        for name, races in record["tasks"].items()
    ]
    usual = [row["significant"] for row in record["usual"]]
    rows.append(("ten comparisons on `digits` in the usual way", str(len(usual)), str(sum(map(bool, usual)))))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{table(('', 'number', 'with a false claim'), rows)}\n\n`{record['command']}`, {versions}."


def repetitions(file: Path = REPETITIONS) -> str:
    """Return the results of repeated races as a table, with their command."""
    record = json.loads(file.read_text())
    head = ("task", "races", "mean regret, margins", "largest", "false bounds", "claims", "wrong", "median seeds")
    rows = [
        (
            f"`{name}`",
            str(len(task["races"])),
            f"{task['mean regret in margins']:.2f}",
            f"{max(row['regret'] for row in task['races']) / task['margin']:.2f}",
            *(f"{task[key]:g}" for key in ("false bounds", "claims", "wrong claims", "median seeds")),
        )
        for name, task in record["tasks"].items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{table(head, rows)}\n\n`{record['command']}`, {versions}."


def tuned_hyperparameters(file: Path = TUNED_HYPERPARAMETERS) -> str:
    """Return a table of what tuning more than the learning rate gains, with the command."""
    record = json.loads(file.read_text())
    head = ("task", "trials", "mean gain", "gain of the best entry", "deviation: learning rate alone", "more")
    keys = ("mean gain", "gain of the best", "deviation", "deviation of more")
    rows = [
        (f"`{name}`", trials, *(f"{result[key]:.2f}".replace("-", "−") for key in keys))
        for name, results in record["tasks"].items()
        for trials, result in results.items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{table(head, rows)}\n\n`{record['command']}`, {versions}."


def muon_gain(file: Path = MUON_GAIN) -> str:
    """Return a table of what the division of models between Muon and AdamW gains in races, with the command."""
    record = json.loads(file.read_text())
    rows = []
    for name, result in record["tasks"].items():
        former = np.array(result["entries"]["former"]["runs"])
        better = 1 if result["higher is better"] else -1
        cells = []
        for entry in ("muon", "muon-original", "adamw"):
            gains = better * (np.array(result["entries"][entry]["runs"]) - former)
            error = gains.std(ddof=1) / len(gains) ** 0.5
            cells.append(f"{gains.mean():+.3f} ± {error:.3f}".replace("-", "−"))
        rows.append((f"`{name}`", result["metric"], f"{former.mean():.3f}", *cells))
    head = ("task", "metric", "former", "gain of `muon`", "of `muon-original`", "of `adamw`")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{table(head, rows)}\n\n`{record['command']}`, {versions}."


def speed(file: Path = STEP) -> str:
    """Return tables of step times relative to torch, one per workload; without the file, how to measure them."""
    if not file.exists():
        return (
            "This repository contains no measurement yet. `python benchmarks/step.py` takes about five minutes on "
            "two cores, prints the ratios, and writes the file from which this table is generated."
        )
    record = json.loads(file.read_text())
    parts = []
    for work in dict.fromkeys(row["work"] for row in record["rows"]):
        rows = [row for row in record["rows"] if row["work"] == work]
        others = [way for way in ("default", "foreach", "fused") if any(way in row["seconds"] for row in rows)]
        memory = any("memory" in row["seconds"] for row in rows)
        head = ["", "time per step", *(f"torch {way}" for way in others), *(["memory speed"] if memory else [])]
        lines = []
        for row in rows:
            times = row["seconds"]
            ratios = [f"{times[way] / times['ours']:.2f}×" if way in times else "–" for way in others]
            share = [f"{times['memory'] / times['ours']:.0%}" if "memory" in times else "–"] if memory else []
            lines.append((f"`{row['class']}`", f"{times['ours'] * 1e3:.3g} ms", *ratios, *share))
        parts.append(f"**{work}**\n\n{table(head, lines)}")
    first, machine = record["first_call"], record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    parts.append(
        f"First step of a new process with a cached kernel: {first['ours'] * 1e3:.0f} ms; first call of a "
        f"trivial cached Numba function: {first['trivial'] * 1e3:.0f} ms."
    )
    parts.append(f"`{record['command']}`, {machine['cores']} threads, {machine['cpu']}, {versions}.")
    return "\n\n".join(parts)


def peers(file: Path = PEERS) -> str:
    """Return tables of step times relative to other packages, one per workload; without the file, how to measure."""
    if not file.exists():
        return (
            "This repository contains no measurement yet. `python benchmarks/peers.py` takes about three minutes on "
            "two cores, prints the ratios, and writes the file from which this table is generated."
        )
    record = json.loads(file.read_text())
    parts = []
    for work in dict.fromkeys(row["work"] for row in record["rows"]):
        rows = [row for row in record["rows"] if row["work"] == work]
        others = list(dict.fromkeys(name for row in rows for name in row["seconds"] if name != "ours"))
        lines = []
        for row in rows:
            times = row["seconds"]
            ratios = [f"{times[name] / times['ours']:.2f}×" if name in times else "–" for name in others]
            lines.append((f"`{row['class']}`", f"{times['ours'] * 1e3:.3g} ms", *ratios))
        parts.append(f"**{work}**\n\n{table(['', 'time per step', *others], lines)}")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    machine = record["machine"]
    parts.append(f"`{record['command']}`, {machine['cores']} threads, {machine['cpu']}, {versions}.")
    return "\n\n".join(parts)


def other_optimizers(file: Path = OTHER_OPTIMIZERS) -> str:
    """Return which classes of other packages race, and a table of those that do not."""
    record = json.loads(file.read_text())
    entered = record["entered"]
    raced, unchanged = sum(map(len, entered.values())), len(entered["as it is"])
    rows = [(f"`{name}`", plain(reason).replace("|", "\\|")) for name, reason in record["refused"].items()]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"Of the {raced + len(rows)} classes of {versions}, {raced} race: {unchanged} as they are, and "
        f"{raced - unchanged} with a function or an option from the table above. The others:\n\n"
        f"{table(('class', 'reason'), rows)}\n\n`{record['command']}`."
    )


def price(file: Path = RACE) -> str:
    """Return the cost of a race relative to plain PyTorch loops; without the file, how to measure it."""
    if not file.exists():
        return "This repository contains no measurement yet. `python benchmarks/race.py` makes one, in half an hour."
    record = json.loads(file.read_text())
    lines = []
    for name, rows in record.items():
        if isinstance(rows, list) and "plain" in rows[0]:
            ratios = sorted(row["ratio"] for row in rows)
            row = next(row for row in rows if row["ratio"] == ratios[(len(rows) - 1) // 2])
            plain = [f"{1e3 * row['plain'][way]:.0f} ms" for way in ("one process", "a process a core")]
            race, rate = row["race"], f"{row['GFLOP/s']:.0f} of {row['of']:.0f}"
            speedup = f"{row['ratio']:.1f}×"
            spread = f" ({ratios[0]:.1f}–{ratios[-1]:.1f}×)" if len(rows) > 1 else ""
            lines.append(
                (name, *plain, f"{1e3 * race['a trial']:.0f} ms", f"{race['networks']:,}", speedup + spread, rate)
            )
    head = ["model", "one process", "one process per core", "in a race", "runs in the race", "speedup", "GFLOP/s"]
    about = f"`{record['command']}`, {record['cores']} cores, torch {record['torch']}"
    note = (
        "Times are per training run, first those of plain PyTorch loops. Speedup is relative to the faster of them. "
        "GFLOP/s counts the products of training steps, beside those of a large matrix product in the same run. Of "
        "several measurements, on processors of different speed, a row is the median, with the range of the speedup."
    )
    return f"{table(head, lines)}\n\n{about}. {note}"


def task_table() -> str:
    """Return a table of the built-in tasks: data, metric and default size of a race."""
    lines = []
    for task in tasks.ALL.values():
        metric, share = task.metric, 100 if task.metric.percent else 1
        margin = f"{100 * metric.margin:g} % of the better" if metric.relative else f"{share * metric.margin:g}"
        entries = len(task.entries) or len(BRACKETS["rules"])
        budget = f"{entries} × ({task.trials or TRIALS} + {task.seeds or SEEDS})"
        chance = f"{share * task.baseline:.4g}"
        lines.append((f"`{task.name}`", task.about, metric.name, chance, margin, str(task.epochs), budget))
    return table(["task", "data and model", "metric", "chance level", "margin", "epochs", "training runs"], lines)


def claims_made_by(file: Path = RESULTS) -> str:
    """Return the number of claims by verdict, and the command that tests them, with its time and the versions."""
    record = load_results(file)
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"{len(record['claims'])} claims: {format_counts(record['claims'])}.\n\n"
        f"`{record['command']}`, {record['seconds'] / 60:.1f} minutes on {record['machine']['cores']} cores, "
        f"{record['machine']['cpu']}, {versions}."
    )


MEASURED: dict[str, Callable[[], str]] = {
    "aa-tests": aa_tests_table,
    "repetitions": repetitions,
    "tuned-hyperparameters": tuned_hyperparameters,
    "muon-gain": muon_gain,
    "claims": claims_made_by,
    "cluster": cluster_docs.overhead,
    "compatibility": compatibility_docs.situations,
    "compatibility-made": compatibility_docs.made_by,
    "compatibility-mistakes": compatibility_docs.mistakes,
    "modifiers": modifier_docs.overview,
    "other-optimizers": other_optimizers,
    "peers": peers,
    "papers": paper_table,
    "price": price,
    "published-suite": suite_entry_docs.published_tasks,
    "refused-modifiers": modifier_docs.refusals,
    "rules": every,
    "scale": cluster_docs.scale,
    "speed": speed,
    "suite-choices": suite_docs.choices,
    "suite-entry": suite_entry_docs.measurements,
    "suite-made": suite_docs.made_by,
    "suite-problems": suite_docs.by_problem,
    "suite-sentences": suite_docs.sentences,
    "tasks": task_table,
}


def api(module: str) -> str:
    """Return the public names of a module with their signatures and docstrings."""
    home = import_module(module)
    return "\n\n".join(entry(home, name) for name in home.__all__)


def entry(home: Any, name: str) -> str:
    """Return the entry of one public name."""
    value, shown = getattr(home, name), f"{home.__name__}.{name}"
    if isinstance(value, Rule):
        return f"`{shown}`: [{value.name}](/optimizers/{value.name}.md). {value.summary}"
    if isinstance(value, Modifier):
        return f"`{shown}`: see [{value.name}](/modifiers.md). {value.summary}"
    if inspect.isclass(value) and issubclass(value, optim.RuleOptimizer) and hasattr(value, "rule"):
        return f"`{shown}`: see [{value.rule.name}](/optimizers/{value.rule.name}.md)."
    doc = inspect.getdoc(value) or ""
    if inspect.ismodule(value) or not callable(value) or hasattr(value, "__origin__"):
        summary = doc.partition("\n")[0] if inspect.ismodule(value) else _constant_docstring(home, name)
        return f"`{shown}`: {summary}"
    lines = textwrap.wrap(f"{shown}{_signature(value)}", 92, subsequent_indent=" " * 4)
    return f"{code(chr(10).join(lines), kind='signature')}\n\n{markdown(doc)}"


def _signature(value: Any) -> str:
    """Return a signature without types, which the docstring describes."""
    try:
        full = inspect.signature(value)
    except ValueError:
        return ""
    empty = inspect.Parameter.empty
    bare = full.replace(parameters=[p.replace(annotation=empty) for p in full.parameters.values()])
    text = str(bare.replace(return_annotation=inspect.Signature.empty))
    return re.sub(r"<function .*? at 0x[0-9a-f]+>|<factory>|PosixPath\([^)]*\)", "...", text)


def _constant_docstring(home: Any, name: str) -> str:
    """Return the string below the assignment of a constant, in any file of the package."""
    for file in sorted(Path(home.__file__).parent.glob("*.py")):
        body = ast.parse(file.read_text()).body
        for statement, below in itertools.pairwise(body):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        return " ".join(text.split())
    value = getattr(home, name)
    return f"`{value!r}`." if isinstance(value, str | int | float) else "a constant."


def markdown(doc: str) -> str:
    """Convert a Google-style docstring to Markdown, with its sections as lists."""
    text, *sections = re.split(r"^(Args|Returns|Raises|Yields):\n", doc, flags=re.MULTILINE)
    parts = [text.strip()]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        inside = textwrap.dedent(body.split("\n\n")[0]).strip()
        after = "\n\n".join(textwrap.dedent(part) for part in body.split("\n\n")[1:])
        if title in ("Args", "Raises"):
            items = re.split(r"\n(?=\S)", inside)
            joined = [" ".join(item.split()) for item in items]
            lines = [re.sub(r"^(\*{0,2}\w+): ", r"`\1`: ", item) for item in joined]
            inside = "\n".join(f"* {line}" for line in lines)
        parts.append(f"*{'Arguments' if title == 'Args' else title}*\n\n{inside}\n\n{after}".rstrip())
    return "\n\n".join(parts)


class RuleBlock(SphinxDirective):
    """Insert a block of `BLOCKS`; arguments are the name of the rule and of the block.

    `modified` is the block of a modified rule, such as `ema(adam)`.
    """

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the block."""
        name, block = self.arguments
        self.env.note_reread()  # it depends on the rule, whose file Sphinx does not watch
        write = modified if block == "modified" else BLOCKS[block]
        return self.parse_text_to_nodes(write(modifier_docs.find_rule(name)))


class Measured(SphinxDirective):
    """Insert a table of `MEASURED`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the table."""
        self.env.note_reread()
        return self.parse_text_to_nodes(MEASURED[self.arguments[0]](), allow_section_headings=True)


class Api(SphinxDirective):
    """Insert the public names of a module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the names."""
        self.env.note_reread()
        return self.parse_text_to_nodes(api(self.arguments[0]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives and roles."""
    app.add_directive("rule", RuleBlock)
    app.add_directive("measured", Measured)
    app.add_directive("api", Api)
    app.add_directive("commands", command_docs.Commands)
    app.add_directive("numbers", measured_values.Numbers)
    app.add_role("value", measured_values.Value())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
