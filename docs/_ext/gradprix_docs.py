"""What the documentation says about a rule, made from the rule; and about measurements, made from their files.

Every function here returns Markdown; the directives only place it. In a page:

    ```{rule} adam formula
    ```

with one of `BLOCKS` after the rule's name. `{measured}` places a table of a benchmark, `{api}` a module's public names,
and the roles ``{twins}`accuracy usual` `` and ``{looks}`spent` `` a figure of studies/aa_tests.json and
studies/interim_analyses.json.
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
import suite_docs
import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole
from suite_docs import table

from gradprix import optim, rules, tasks
from gradprix.claims import RESULTS, committed, counted
from gradprix.optim import _compat
from gradprix.race import BRACKETS, ENTRIES, SEEDS, TRIALS, Entry
from gradprix.rules import AROUND, Rule, State
from gradprix.rules._rule import ANY, DOMAINS
from gradprix.rules.notation import symbol, written

ROOT = Path(__file__).resolve().parents[2]
TWINS = ROOT / "studies" / "aa_tests.json"
LOOKS = ROOT / "studies" / "interim_analyses.json"
STEP = ROOT / "benchmarks" / "step.json"
RACE = ROOT / "benchmarks" / "race.json"
DIFFERENCES = ROOT / "tests" / "recordings" / "differences.json"

MEANING = {
    "lr": "learning rate",
    "beta1": "how much of the running mean of gradients is kept",
    "beta2": "how much of the second average is kept",
    "beta3": "how much of the third average is kept",
    "alpha": "how much of the mean square is kept",
    "rho": "how much of the mean squares is kept",
    "eps": "keeps the denominator from zero",
    "momentum": "how much of the sum of past gradients is kept; 0 for none",
    "dampening": "what the newest gradient loses on its way into the momentum",
    "nesterov": "momentum looks one step ahead",
    "weight_decay": "pull of the weights towards zero",
    "decoupled_weight_decay": "decay shrinks the weights themselves, not by way of the gradient",
    "maximize": "climb instead of descending",
    "amsgrad": "the second moment never falls",
    "centered": "divide by the variance of the gradients, not by their mean square",
    "lr_decay": "the rate also falls as 1 / (1 + (t − 1) · this)",
    "initial_accumulator_value": "what the sum of squares starts from",
    "momentum_decay": "how fast the momentum rises to its full value; larger is faster",
    "eps_inside_sqrt": "ε is added under the root",
    "eps_before_correction": "ε is added before the second moment is corrected for its start",
    "eps_after_correction": "ε is added after the second moment is corrected for its start",
    "eps_after_max": "ε is added to the maximum, not inside it",
    "lr_inside_momentum": "the rate is multiplied in before the momentum, so that a change of it takes effect slowly",
    "dampen_first": "the first gradient is dampened like the others",
    "correct_before_max": "the maximum is taken of corrected values",
    "correct_second_moment": "the second moment is corrected for starting at zero, instead of the rate",
    "uncorrected": "neither average is corrected for starting at zero",
    "full_lr": "decay is multiplied by lr / full_lr instead of lr; 0 for lr itself",
    "scheduled_mean": "the running mean uses the scheduled momentum, not β₁",
    "decay_after_correction": "the corrected second moment is multiplied by β₂",
    "rectify_above_four": "rectification begins at ρ > 4, not ρ > 5",
    "warmup_steps": "steps over which the rate rises; 0 for none",
    "r": "the weight of step t in the average grows as t to this power",
    "weight_lr_power": "the weight of a step grows as its largest rate so far to this power",
}
SAME = 1e-12
"""Below this a difference is rounding."""


def code(text: str, caption: str = "", emphasized: Iterable[int] = (), kind: str = "formula") -> str:
    """A block of preformatted text."""
    lines = [f"```{{code-block}} {'python' if kind == 'signature' else 'text'}", f":class: {kind}"]
    lines += [f":caption: {caption}"] if caption else []
    numbers = ",".join(map(str, emphasized))
    lines += [f":emphasize-lines: {numbers}"] if numbers else []
    return "\n".join([*lines, "", text, "```"])


def number(value: Any) -> str:
    """A value as it is written in code."""
    if isinstance(value, tuple | list):
        return f"({', '.join(map(number, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def head(rule: Rule) -> str:
    """The rule in a sentence, its relation to a neighbour, its source and its class."""
    source = f"*Source:* {linked(rule.source)}."
    return f"{rule.summary}\n\n*Relation:* {rule.relation}\n\n{source}\n\n{signature(rule)}"


def linked(source: str) -> str:
    """A source with its arXiv and DOI numbers as links."""
    source = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)
    return re.sub(r"doi:(10\.[^\s;,]+\w(?:\)\d+-\d)?)", r"[doi:\1](https://doi.org/\1)", source)


def signature(rule: Rule) -> str:
    """How the class is called."""
    cls = optim.of(rule)
    call = f"{cls.__name__}{inspect.signature(cls)}"
    known = cls.__name__ in optim.__all__
    call = call if known else call.replace(cls.__name__, f"of({rule.name})", 1)
    return code("\n".join(textwrap.wrap(f"optim.{call}", 84, subsequent_indent=" " * 6)), kind="signature")


def formula(rule: Rule) -> str:
    """The equations at the defaults, then with each option on, the lines that differ marked."""
    plain = rules.formula(rule)
    blocks = [code("\n".join(plain))]
    for caption, given in variants(rule):
        lines = rules.formula(rule, **given)
        changed = [i for i, line in enumerate(lines, 1) if line not in plain]
        blocks.append(code("\n".join(lines), f"With {caption}", changed))
    if rule.evaluation is not None:
        point = rule.evaluation.assigns[-1]
        text = written(point.value)
        blocks.append(code(f"{symbol(point.name)} ← {text}", "The point to evaluate the model at, after `eval()`"))
    return "\n\n".join(blocks)


def variants(rule: Rule) -> list[tuple[str, dict[str, float | bool]]]:
    """What can be switched on, each with what it needs: `momentum`, then `nesterov` with momentum."""
    off = [name for name in rule.hyperparameters if name in rule.tree.conditions and not rule.hyperparameters[name]]
    numbers = [name for name in off if not isinstance(rule.hyperparameters[name], bool)]
    gates = {name: 0.9 for name in numbers if any(state.when == name for state in rule.state.values())}
    plain, found = rules.formula(rule), []
    for name in off:
        given: dict[str, float | bool] = {name: True if name in rule.options else gates.get(name, 1.0)}
        needs = gates and name not in gates and (_speaks_of(rule, name, gates) or rules.formula(rule, **given) == plain)
        given = {**gates, **given} if needs else given
        caption = ", ".join(f"`{key}={value}`" if value is True else f"`{key}` above 0" for key, value in given.items())
        found.append((caption, given))
    return found


def _speaks_of(rule: Rule, option: str, gates: Iterable[str]) -> bool:
    """Whether an option is about something that is switched on by a number: by its name, or in its own lines."""
    texts = [repr(assign.value) for assign in rule.tree.assigns if f"Choice(option={option!r}" in repr(assign.value)]
    return any(gate in option or any(f"Hyper(name={gate!r})" in text for text in texts) for gate in gates)


def defaults(rule: Rule) -> str:
    """Every argument with its default and what is allowed."""
    rows = []
    for name, value in rule.hyperparameters.items():
        letter = symbol(name) if name not in AROUND or rule.owns_weight_decay else ""
        letter = "" if letter == name or isinstance(value, bool) else letter
        rows.append((f"`{name}`", letter, f"`{number(value)}`", allowed(rule, name), MEANING.get(name, "")))
    note = ""
    if rule.betas:
        note = f"\n\nThe class takes {', '.join(f'`{beta}`' for beta in rule.betas)} together as `betas`."
    return table(("hyperparameter", "letter", "default", "allowed", "what it is"), rows) + note


def allowed(rule: Rule, name: str) -> str:
    """The values that a hyperparameter may have."""
    if isinstance(rule.hyperparameters[name], bool):
        return "True or False"
    low, high = rule.domains.get(name) or DOMAINS.get(name, ANY)
    return f"{low:g} ≤ · < {high:g}" if high < float("inf") else f"{low:g} and up"


def state(rule: Rule) -> str:
    """What is remembered for each weight."""
    held = rule.memory(rule.values())
    most = rule.memory(rule.values(**dict.fromkeys(rule.options, True)) | _nonzero(rule))
    text = f"{_count(held, 'number')} for each weight at the defaults"
    text += f", {most} with everything on." if most > held else "."
    if not rule.state:
        return text
    rows = [
        (
            symbol(name),
            f"`{spec.key}`",
            "one for each weight" if spec.kind == "element" else "one for each parameter",
            _start(spec),
            f"`{spec.when}`" if spec.when else "always",
        )
        for name, spec in rule.state.items()
    ]
    return text + "\n\n" + table(("letter", "key in a checkpoint", "how many", "starts at", "exists with"), rows)


def _nonzero(rule: Rule) -> dict[str, float]:
    return {spec.when: 0.5 for spec in rule.state.values() if spec.when and spec.when not in rule.options}


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}" if n else f"No {what}"


def _start(spec: State) -> str:
    start = {"x": "the weight", "g": "the first gradient"}
    return start.get(spec.init, f"`{spec.init}`") if isinstance(spec.init, str) else f"{spec.init:g}"


def space(rule: Rule) -> str:
    """Where a race searches, and under which names."""
    ranges = ", ".join(f"`{name}` from {log.low:g} to {log.high:g}" for name, log in rule.space.items())
    text = f"Searched evenly in the logarithm: {ranges}."
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
    return f"{text}\n\n" + table(("name in a race", "fixed", "`lr`", "batch size", "in the default race"), rows)


def differences(rule: Rule, file: Path = DIFFERENCES) -> str:
    """How other libraries' class of this name differs: defaults and options, then the measured size."""
    parts = []
    presets = {name: forms for name, forms in _compat.LIKE.items() if name.split()[0] == rule.name}
    if presets:
        rows = []
        for name, forms in presets.items():
            option = "".join(f" with `{part}=True`" for part in name.split()[1:])
            for library, form in forms.items():
                rows.append((f"`like={library!r}`{option}", form if isinstance(form, str) else _preset(rule, form)))
        parts.append("`like=` gives the class another library's arithmetic and defaults. What that changes:")
        parts.append(table(("", "differs from torch's defaults by"), rows))
    record = json.loads(file.read_text()) if file.exists() else {}
    cls = optim.of(rule).__name__
    rows = [row for row in record.get("rows", []) if row["class"] == cls]
    if rows:
        parts.append(_measured(rows, record))
    if not parts:
        lacking = "" if hasattr(torch.optim, cls) else f"`torch.optim` has no `{cls}`. "
        return f"{lacking}What other libraries call by this name has not been measured."
    return "\n\n".join(parts)


def _preset(rule: Rule, form: Mapping[str, Any]) -> str:
    """What a preset changes, in words."""
    words = {_compat.REQUIRED: "`{}` must be given", _compat.SAME_AS_LR: "`{}` is the rate it starts from"}
    words |= {_compat.TINY: "no ε", _compat.CONSTANT: "momentum that is constant (`{}` = 1e6)"}
    plain = {**rule.hyperparameters, "betas": tuple(rule.hyperparameters[beta] for beta in rule.betas)}
    changed = [(name, value) for name, value in form.items() if plain.get(name) != value]
    said = [
        words[value].format(name) if isinstance(value, str | float) and value in words else f"`{name}={number(value)}`"
        for name, value in changed
    ]
    return ", ".join(said) or "nothing"


def _measured(rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> str:
    scales = [number(float(scale)) for scale in record["scales"]]
    names = {**_compat.LIBRARIES, "paper": "the paper"}
    lines, same = [], dict[str, list[str]]()
    for row in rows:
        given = ", ".join(f"`{name}={number(value)}`" for name, value in row["given"].items())
        falls = "rate falls tenfold half way" if row.get("lr falls") else ""
        case = "; ".join(part for part in (given, falls) if part) or "defaults"
        against = f"{names.get(row['like'], row['like'])}, {row['with']}"
        if all(value is not None and value < SAME for value in row["difference"]):
            same.setdefault(against, []).append(f"({case})")
        else:
            lines.append((against, case, *(f"{value:.2g}" for value in row["difference"])))
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    about = (
        "Measured: how far the whole movement differs from that of `torch.optim`, as a share of it, after 100 steps "
        f"in float64 on the same gradients, of size {', '.join(scales[:-1])} and {scales[-1]}."
    )
    parts = [about]
    if lines:
        parts.append(table(("against", "case", *(f"gradients of {scale}" for scale in scales)), lines))
    if same:
        said = "\n".join(f"* {against}: {', '.join(cases)}" for against, cases in same.items())
        parts.append(f"Equal to torch up to rounding (below {SAME:g}):\n\n{said}")
    return "\n\n".join([*parts, f"`{record['command']}`, {versions}."])


def every(rules_: Mapping[str, Rule] | None = None) -> str:
    """All rules in a table."""
    rows = []
    for rule in (rules_ or rules.ALL).values():
        name = f"[{optim.of(rule).__name__}](/optimizers/{rule.name}.md)"
        rows.append((name, rule.summary, str(rule.memory(rule.values())), f"`{number(rule.hyperparameters['lr'])}`"))
    return table(("class", "what it does", "numbers kept for each weight", "default `lr`"), rows)


BLOCKS: dict[str, Callable[[Rule], str]] = {
    "head": head,
    "formula": formula,
    "defaults": defaults,
    "state": state,
    "space": space,
    "differences": differences,
}
"""What a page shows of its rule."""


def twins(what: str, file: Path = TWINS) -> str:
    """A figure of the twins benchmark, of 100 comparisons: `accuracy usual`, `loss race`, `accuracy told`."""
    measure, way = what.split()
    comparisons = json.loads(file.read_text())["comparisons"]
    said = {"usual": [True], "told": ["wins", "slightly ahead"]}.get(way, ["wins"])
    ways = [row[measure]["pair" if way == "told" else way] for row in comparisons]
    return f"{sum(word in said for word in ways)}"


def looks(what: str, file: Path = LOOKS) -> str:
    """A figure of the looks benchmark, of all races: `spent` or `each`."""
    return f"{100 * json.loads(file.read_text())[what]:.1f} %"


def twins_table(file: Path = TWINS) -> str:
    """The twins benchmark in a table, with its command."""
    record = json.loads(file.read_text())
    ways = {
        "usual": "the usual way: ten rates, one seed, best validation accuracy, paired t-test",
        "told": "tuned as in a race, the two judged alone: *wins* or *slightly ahead*",
        "pair": "tuned as in a race, the two judged alone: *wins*",
        "race": "a race of eleven: *wins*",
    }
    rows = [(text, twins(f"accuracy {way}", file), twins(f"loss {way}", file)) for way, text in ways.items()]
    head = ("of " + str(len(record["comparisons"])) + " comparisons with a twin, one is told", "by accuracy", "by loss")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{table(head, rows)}\n\n`{record['command']}`, {versions}."


def speed(file: Path = STEP) -> str:
    """The speed of a step against torch in tables, one for each kind of work; how to measure without the file."""
    if not file.exists():
        return (
            "No measurement is kept in this repository yet. `python benchmarks/step.py` takes about five minutes on "
            "two cores, prints the ratios, and writes the file from which this page makes its table."
        )
    record = json.loads(file.read_text())
    parts = []
    for work in dict.fromkeys(row["work"] for row in record["rows"]):
        rows = [row for row in record["rows"] if row["work"] == work]
        others = [way for way in ("default", "foreach", "fused") if any(way in row["seconds"] for row in rows)]
        memory = any("memory" in row["seconds"] for row in rows)
        head = ["", "a step", *(f"torch {way}" for way in others), *(["memory speed"] if memory else [])]
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
        f"The first step of a fresh process, its kernel cached: {first['ours'] * 1e3:.0f} ms; a trivial cached Numba "
        f"function's first call: {first['trivial'] * 1e3:.0f} ms."
    )
    parts.append(f"`{record['command']}`, {machine['cores']} threads, {machine['cpu']}, {versions}.")
    return "\n\n".join(parts)


def price(file: Path = RACE) -> str:
    """What a race costs against plain PyTorch loops; how to measure without the file."""
    if not file.exists():
        return "No measurement is kept in this repository yet: `python benchmarks/race.py` makes one, in half an hour."
    record = json.loads(file.read_text())
    lines = []
    for name, row in record.items():
        if isinstance(row, dict) and "plain" in row:
            plain = [f"{1e3 * row['plain'][way]:.0f} ms" for way in ("one process", "a process a core")]
            race = row["race"]
            lines.append(
                (name, *plain, f"{1e3 * race['a trial']:.0f} ms", f"{race['networks']:,}", f"{row['ratio']:.1f}×")
            )
    head = ["", "plain, one process", "plain, a process a core", "in a race", "networks raced", "ratio to the faster"]
    about = f"`{record['command']}`, {record['cores']} cores, torch {record['torch']}"
    return f"{table(head, lines)}\n\n{about}. Times are for one network, from start to end."


def task_table() -> str:
    """Every built-in task: what it is, how it is judged, and what a race on it does by default."""
    lines = []
    for task in tasks.ALL.values():
        metric, share = task.metric, 100 if task.metric.percent else 1
        margin = f"{100 * metric.margin:g} % of the better" if metric.relative else f"{share * metric.margin:g}"
        who = len(task.entries) or len(BRACKETS["rules"])
        budget = f"{who} × ({task.trials or TRIALS} + {task.seeds or SEEDS})"
        trivial = f"{share * task.baseline:.4g}"
        lines.append((f"`{task.name}`", task.about, metric.name, trivial, margin, str(task.epochs), budget))
    return table(["", "what it is", "judged by", "trivial", "margin", "epochs", "networks"], lines)


def claims_table(file: Path = RESULTS) -> str:
    """The account's claims, in our words, beside what was measured, with the command that measures it again."""
    record = committed(file)
    rows = []
    for claim in record["claims"]:
        account = f"{claim['statement']}<br>`gradprix claims {claim['id']}`"
        rows.append((account, f"**{claim['verdict']}**", plain(claim["says"]), _with_interval(claim), str(claim["n"])))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    head = ("the account says", "verdict", "what was measured", "effect (95 %)", "n")
    about = (
        f"`{record['command']}`, {record['seconds'] / 60:.1f} minutes on {record['machine']['cores']} cores, "
        f"{record['machine']['cpu']}, {versions}."
    )
    return f"{len(record['claims'])} claims: {counted(record['claims'])}.\n\n{table(head, rows)}\n\n{about}"


def claims_in_full(file: Path = RESULTS) -> str:
    """Each claim with its prediction, the rule that decided, and every number."""
    parts = []
    for claim in committed(file)["claims"]:
        said = {"If it is so": claim["prediction"], "Decided by": claim["decides"], "Source": linked(claim["source"])}
        said |= {"Revised": claim["revised"]} if claim.get("revised") else {}
        lines = [f"### {claim['id']}", f"**The account.** {plain(claim['statement'])}"]
        lines += [f"**{name}.** {text if name == 'Source' else plain(text)}" for name, text in said.items() if text]
        lines.append(f"**Verdict: {claim['verdict']}.** {plain(claim['says'])}")
        numbers = [(plain(each["what"]), _with_interval(each), str(each["n"])) for each in claim["measured"]]
        lines += [table(("measured", "effect (95 %)", "n"), numbers)] if numbers else []
        parts.append("\n\n".join(lines))
    return "\n\n".join(parts)


def plain(text: str) -> str:
    """Text without what Markdown would take for its own."""
    return re.sub(r"([*_<>`\[\]])", r"\\\1", text)


def _with_interval(found: Mapping[str, Any]) -> str:
    """An effect with its interval, in three digits; alone where it is exact."""
    (low, high), effect = found["ci95"], found["effect"]
    if effect is None:
        return "–"
    said = [f"{value:.3g}".replace("-", "−", 1) if value < 0 else f"{value:.3g}" for value in (effect, low, high)]
    return said[0] if low == effect == high else f"{said[0]} ({said[1]} to {said[2]})"


MEASURED: dict[str, Callable[[], str]] = {
    "claims": claims_table,
    "claims-in-full": claims_in_full,
    "cluster": cluster_docs.overhead,
    "price": price,
    "rules": every,
    "scale": cluster_docs.scale,
    "speed": speed,
    "suite-choices": suite_docs.choices,
    "suite-made": suite_docs.made_by,
    "suite-problems": suite_docs.by_problem,
    "suite-sentences": suite_docs.sentences,
    "tasks": task_table,
    "twins": twins_table,
}


def api(module: str) -> str:
    """The public names of a module, with their signatures and docstrings."""
    home = import_module(module)
    return "\n\n".join(entry(home, name) for name in home.__all__)


def entry(home: Any, name: str) -> str:
    """One public name."""
    value, shown = getattr(home, name), f"{home.__name__}.{name}"
    if isinstance(value, Rule):
        return f"`{shown}`: [{value.name}](/optimizers/{value.name}.md). {value.summary}"
    if inspect.isclass(value) and issubclass(value, optim.RuleOptimizer) and hasattr(value, "rule"):
        return f"`{shown}`: see [{value.rule.name}](/optimizers/{value.rule.name}.md)."
    doc = inspect.getdoc(value) or ""
    if inspect.ismodule(value) or not callable(value):
        kept = doc.partition("\n")[0] if inspect.ismodule(value) else _after(home, name)
        return f"`{shown}`: {kept}"
    lines = textwrap.wrap(f"{shown}{_call(value)}", 92, subsequent_indent=" " * 4)
    return f"{code(chr(10).join(lines), kind='signature')}\n\n{markdown(doc)}"


def _call(value: Any) -> str:
    """A signature without its types, which the docstring makes plain."""
    try:
        found = inspect.signature(value)
    except ValueError:
        return ""
    empty = inspect.Parameter.empty
    bare = found.replace(parameters=[p.replace(annotation=empty) for p in found.parameters.values()])
    text = str(bare.replace(return_annotation=inspect.Signature.empty))
    return re.sub(r"<function .*?>|<lambda.*?>|<factory>", "...", text)


def _after(home: Any, name: str) -> str:
    """The string under a constant's assignment, in whichever file of the package it stands."""
    for file in sorted(Path(home.__file__).parent.glob("*.py")):
        body = ast.parse(file.read_text()).body
        for statement, below in itertools.pairwise(body):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        return " ".join(text.split())
    return "a constant."


def markdown(doc: str) -> str:
    """A docstring of Google's form as Markdown: its sections become lists."""
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
    """A block of `BLOCKS`, for a rule: its name, then the block's."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """The block's nodes."""
        name, block = self.arguments
        self.env.note_reread()  # it changes with the rule, which is no file that Sphinx watches
        return self.parse_text_to_nodes(BLOCKS[block](rules.ALL[name]))


class Measured(SphinxDirective):
    """A table of `MEASURED`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table's nodes."""
        self.env.note_reread()
        return self.parse_text_to_nodes(MEASURED[self.arguments[0]](), allow_section_headings=True)


class Api(SphinxDirective):
    """The public names of a module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The names' nodes."""
        self.env.note_reread()
        return self.parse_text_to_nodes(api(self.arguments[0]))


class Figure(SphinxRole):
    """A figure of a benchmark.

    Args:
        found: what says it as text.
    """

    def __init__(self, found: Callable[[str], str]) -> None:
        super().__init__()
        self.found = found

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The figure as text."""
        return [nodes.Text(self.found(self.text))], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what the pages use."""
    app.add_directive("rule", RuleBlock)
    app.add_directive("measured", Measured)
    app.add_directive("api", Api)
    app.add_role("twins", Figure(twins))
    app.add_role("looks", Figure(looks))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
