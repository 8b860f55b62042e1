"""Differences of other libraries' optimizers of the same name: defaults, options and measured size."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from markdown_docs import number, table

from gradprix import optim
from gradprix.optim import _compat
from gradprix.rules import Rule

ROOT = Path(__file__).resolve().parents[2]


DIFFERENCES = ROOT / "tests" / "recordings" / "differences.json"
SAME = 1e-12
"""Largest relative difference that counts as rounding."""


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
