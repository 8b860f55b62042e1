"""Measured numbers in the documentation are generated, and constants in it are those of the code."""

import math
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from doc_sentences import QUANTITY, numbers, sentences
from gradprix import rules

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
TABLE = tomllib.loads((ROOT / "tests" / "doc_constants.toml").read_text())
CONSTANTS = TABLE["constants"]
KNOWN = [*(constant["text"] for constant in CONSTANTS), *(fact for facts in TABLE["facts"].values() for fact in facts)]


def unexplained(text: str) -> list[str]:
    """Return the sentences of a page with a quantity that is neither generated nor known."""
    return [
        f"{match[0]}: {sentence}"
        for sentence in sentences(text)
        for match in QUANTITY.finditer(sentence)
        if not any(covers(known, sentence, match) for known in KNOWN)
    ]


def covers(known: str, sentence: str, match: re.Match[str]) -> bool:
    return any(
        part.start() <= match.start() and match.end() <= part.end() for part in re.finditer(re.escape(known), sentence)
    )


def evaluate(expression: str) -> Any:
    """Return the value of an expression with dotted names of gradprix, whose modules are imported."""
    names = {
        "math": math,
        "resolve": pkgutil.resolve_name,
        "defaults": lambda name: rules.ALL[name].hyperparameters,
        "memory": lambda name: rules.ALL[name].memory(rules.ALL[name].values()),
    }
    return eval(re.sub(r"\bgradprix(\.\w+)+", lambda path: f"resolve({path[0]!r})", expression), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_quantities_are_generated_or_constants(page: Path) -> None:
    # Measured? Then read it from results: CONTRIBUTING.md, "Numbers in the documentation".
    assert not unexplained(page.read_text())


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda constant: constant["text"][:40])
def test_constants_are_those_of_the_code(constant: dict[str, str]) -> None:
    if "holds" in constant:
        assert evaluate(constant["holds"])
        return
    value = evaluate(constant["is"])
    values = list(value) if isinstance(value, tuple | list) else [value]
    written = numbers(constant["text"])
    assert [number for number, _ in written] == [
        pytest.approx(value, abs=tolerance) for value, (_, tolerance) in zip(values, written, strict=True)
    ]


def test_every_known_quantity_is_in_a_page() -> None:
    stated = [sentence for page in PAGES for sentence in sentences(page.read_text())]
    assert not [
        known
        for known in KNOWN
        if not any(covers(known, each, match) for each in stated for match in QUANTITY.finditer(each))
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "It takes half a minute on two cores.",
        "Compilation takes about a second.",
        "This takes three quarters of Adam's time.",
        "A step is two or three times as long.",
        "A race is ×2.6 faster than loops, or 3.2× in a stack.",
        "An optimizer beats its copy in 77 of 240 comparisons.",
        "* **Memory.** It needs 30 MB more.",
        "| `digits` | 12 s |",
        "The default is **3.0 points** worse.",
        "The bound held in 97 % under every condition.",
        "Half of the time goes to products.",
        "It gains 0.64 margins on [charlm](tasks.md).",
        "A confidence of 95 % means that 12 % of runs diverge.",
    ],
)
def test_a_number_written_by_hand_is_found(sentence: str) -> None:
    page = (ROOT / "docs" / "price.md").read_text()
    assert unexplained(f"{page}\n{sentence}\n")


@pytest.mark.parametrize(
    "text",
    [
        "The `64 %` is code, and [a link](30-seconds.md) has a name.",
        "It gains {value}`studies/x.json: gain | fmt('.2f')` margins.",
        "```{numbers} studies/x.json\nIt takes {{ x }}, 5 seconds.\n```",
        "<!-- generated: why -->\nIt takes 5 seconds.\n<!-- end -->",
        "Images of 28 × 28 pixels, two layers, and one run after another.",
        "    gradprix race digits   # 12 s",
    ],
)
def test_code_and_generated_parts_are_no_handwritten_numbers(text: str) -> None:
    assert not unexplained(f"# Title\n\n{text}\n")


RESULTS = {
    "races": 2_000,
    "short": 12.3,
    "long": 5_400,
    "few": 3,
    "tasks": {"a": [{"false": []}, {"false": ["adam"]}], "b": [{"false": []}]},
    "a key": {"gain": -0.0421},
}


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("races", "2,000"),
        ('data["a key"].gain | fmt(".2f")', "−0.04"),
        ('data["a key"].gain | fmt(".1%")', "−4.2 %"),
        ('tasks | flat | rate("data.false", "races")', "1 of 3 races (95 %: 0.8 to 90.6 %)"),
        ('tasks.b | rate("data.false", "races")', "0 of 1 races (95 %: at most 95 %)"),
        ('tasks.b | rate("not data.false", "races")', "1 of 1 races (95 %: at least 5 %)"),
        ("0.026 | share(races)", "2.6 % (95 %: 1.9 to 3.4 %)"),
        ('tasks | flat | where("data.false") | length', "1"),
        ('tasks | flat | each("data.false | length") | max', "1"),
        ("short | duration", "12 seconds"),
        ("long | duration", "1.5 hours"),
        ("few | words", "three"),
    ],
)
def test_values_are_read_from_results(monkeypatch: pytest.MonkeyPatch, expression: str, text: str) -> None:
    values = pytest.importorskip("measured_values", reason="the documentation needs Sphinx: pip install -e '.[docs]'")
    monkeypatch.setattr(values, "read_results", {"studies/x.json": RESULTS}.__getitem__)
    assert values.value(f"studies/x.json: {expression}") == text


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("nothing", KeyError),
        ('tasks | flat | rate("false", "races")', ValueError),
        ("tasks.c", KeyError),
        ("tasks.c | length", KeyError),
        ("tasks", TypeError),
    ],
)
def test_a_value_that_is_missing_or_has_no_format_is_an_error(
    monkeypatch: pytest.MonkeyPatch, expression: str, error: type[Exception]
) -> None:
    values = pytest.importorskip("measured_values", reason="the documentation needs Sphinx: pip install -e '.[docs]'")
    monkeypatch.setattr(values, "read_results", {"studies/x.json": RESULTS}.__getitem__)
    with pytest.raises(error):
        values.value(f"studies/x.json: {expression}")


def test_regions_are_up_to_date() -> None:
    pytest.importorskip("sphinx", reason="the documentation needs Sphinx: pip install -e '.[docs]'")
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
