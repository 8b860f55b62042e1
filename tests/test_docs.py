"""The documentation is complete, follows the rules, and what it shows can be run."""

import contextlib
import doctest
import inspect
import io
import json
import re
import runpy
import shlex
import sys
import warnings
from pathlib import Path

import pytest
import typer

import gradprix
from gradprix import optim, race, rules
from gradprix.cli import app
from gradprix.rules import log, rule, sqrt
from gradprix.show.palette import colour
from gradprix.stats import permutation_test
from gradprix.tuning import learning_rate_grid, tuner

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

REASON = "the documentation needs Sphinx, nbclient and jupytext: pip install -e '.[docs]'"
pytest.importorskip("sphinx", reason=REASON)
nbclient, jupytext = pytest.importorskip("nbclient", reason=REASON), pytest.importorskip("jupytext", reason=REASON)
sys.path.insert(0, str(DOCS / "_ext"))
import api_docs  # noqa: E402, the pages' own extension is no installed module
import command_docs  # noqa: E402
import compatibility_docs  # noqa: E402
import difference_docs  # noqa: E402
import gradprix_docs  # noqa: E402
import hyperparameter_docs  # noqa: E402
import library_docs  # noqa: E402
import modifier_docs  # noqa: E402
import path_docs  # noqa: E402
import rule_docs  # noqa: E402
import speed_docs  # noqa: E402
import study_docs  # noqa: E402


@rule("nowhere", relation="none.", space={"lr": log(1e-3, 1)}, lr=0.25, zeta=3.0, state={"q": "a_buffer"})
def made_up(h, t, x, g, q):
    """Made up for a test."""
    q = h.zeta * q + sqrt(abs(g))
    x = x - h.lr * q
    return x, q


def named(page: Path) -> str:
    return str(page.relative_to(DOCS))


def test_every_rule_has_a_page_and_every_page_a_rule() -> None:
    pages = {page.stem for page in (DOCS / "optimizers").glob("*.md")} - {"index"}

    assert pages == set(rules.ALL)


def test_the_rules_are_of_at_least_35_papers() -> None:
    papers = library_docs.papers()

    assert len(papers) >= 35
    assert sorted(rule.name for members in papers.values() for rule in members) == sorted(rules.ALL)
    assert {len(members) for members in papers.values()} == {1, 2}, "Adam and Adamax, for example, are of one paper"
    assert library_docs.paper_table().startswith(f"{len(papers)} papers")


@pytest.mark.parametrize("name", rules.ALL)
def test_a_page_has_every_block_and_advice(name: str) -> None:
    text = (DOCS / "optimizers" / f"{name}.md").read_text()

    assert re.findall(r"^```\{rule\} (\w+) (\w+)$", text, re.MULTILINE) == [(name, block) for block in rule_docs.BLOCKS]
    for heading in ("Description", "Properties and pitfalls", "Hyperparameters"):
        part = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        assert len(part.split()) > 30, f"{heading} says too little"


@pytest.mark.parametrize("name", rules.ALL)
def test_every_hyperparameter_is_explained(name: str) -> None:
    assert rules.ALL[name].hyperparameters.keys() <= hyperparameter_docs.MEANING.keys()


def test_every_modifier_has_a_section_with_an_example() -> None:
    text = (DOCS / "modifiers.md").read_text()
    for name, modifier in rules.MODIFIERS.items():
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        (expression,) = re.findall(r"^```\{rule\} (\S+) modified$", section, re.MULTILINE)
        modified = modifier_docs.find_rule(expression)
        assert modified.composition is not None
        assert modified.composition[0] is modifier
        assert rules.formula(modified)[-1] in rule_docs.modified(modified)
        assert modifier.hyperparameters.keys() <= hyperparameter_docs.MEANING.keys()
        assert f"[{name}](#{name.replace('_', '-')})" in modifier_docs.overview()


def test_refused_modifiers_are_listed_with_the_reason() -> None:
    text = modifier_docs.refusals()
    assert "`nesterov(nadam)`, `nesterov(adan)`: the rule has Nesterov momentum already." in text
    pairs = len(rules.MODIFIERS) * len(rules.ALL)
    assert text.startswith(f"{pairs - text.count('(')} of {pairs} pairs of a modifier and a rule are defined.")


def test_no_line_is_lost_as_a_comment() -> None:
    # MyST drops lines that begin with a percent sign.
    assert not [page.name for page in PAGES if re.search(r"^\s*%", page.read_text(), re.MULTILINE)]


def test_every_public_name_is_mentioned() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    text += "".join(api_docs.api(module) for module in re.findall(r"^```\{api\} (\S+)$", text, re.MULTILINE))

    for module in (gradprix, optim):
        for name in module.__all__:
            assert re.search(rf"\b{name}\b", text), f"{module.__name__}.{name} is nowhere in docs/"


def test_blocks_follow_the_rule() -> None:
    blocks = {name: block(made_up) for name, block in rule_docs.BLOCKS.items()}

    assert "q ← zeta q + √|g|" in blocks["formula"]
    assert "| `zeta` |  | `3` | 0 and up |" in blocks["defaults"]
    assert "1 number per weight" in blocks["state"]
    assert "`a_buffer`" in blocks["state"]
    assert "`lr` from 0.001 to 1" in blocks["space"]
    assert "optim.from_rule(made_up)(params, lr=0.25" in blocks["head"]
    assert "have not been measured" in blocks["differences"]


def test_options_are_shown_with_what_they_need() -> None:
    given = dict(rule_docs.variants(rules.sgd))

    assert given["`momentum` above 0"] == {"momentum": 0.9}
    assert given["`momentum` above 0, `nesterov=True`"] == {"momentum": 0.9, "nesterov": True}


def test_the_table_of_other_packages_is_made_of_the_file(tmp_path: Path) -> None:
    rows = [
        {"work": "one", "class": "Lion", "seconds": {"ours": 0.02, "optimi": 0.03}},
        {"work": "one", "class": "Adam", "seconds": {"ours": 0.02, "heavyball": 0.14}},
    ]
    record = {"command": "measure", "machine": {"cores": 2, "cpu": "x86"}, "versions": {"optimi": "1"}, "rows": rows}
    file = tmp_path / "peers.json"
    file.write_text(json.dumps(record))
    assert "| `Lion` | 20 ms | 1.50× | – |" in speed_docs.peers(file)
    assert "| `Adam` | 20 ms | – | 7.00× |" in speed_docs.peers(file)


def test_the_optimizers_that_cannot_race_are_those_of_the_file() -> None:
    record = json.loads(study_docs.OTHER_OPTIMIZERS.read_text())
    text = study_docs.other_optimizers()
    assert all(f"`{name}`" in text for name in record["refused"])
    assert f" {sum(map(len, record['entered'].values()))} race: " in text


def test_a_missing_measurement_is_said(tmp_path: Path) -> None:
    assert "python benchmarks/step.py" in speed_docs.speed(tmp_path / "none.json")
    assert "python benchmarks/peers.py" in speed_docs.peers(tmp_path / "none.json")
    assert "Measured" not in difference_docs.differences(rules.adam, tmp_path / "none.json")


def test_what_is_said_of_clusters_is_made_of_the_files(tmp_path: Path) -> None:
    for name in ("cluster", "scale"):
        record = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
        text = gradprix_docs.MEASURED[name]()
        rows = record["tasks"] if name == "cluster" else record["played"]
        assert all(row in text for row in rows)
        assert record["command"] in text
    usual = next(iter(record["played"].values()))
    assert f"{usual['busy']:.1%}" in text
    assert usual["busy"] >= 0.95


def test_the_table_of_situations_is_made_of_the_file(tmp_path: Path) -> None:
    about = {"kind": "tables", "tolerance": 1e-4, "mistake": False, "works": True}
    rows = {
        "first": {**about, "title": "A stack", "stacked": True, "reason": "", "difference": 2e-7, "stack_speedup": 3.2},
        "second": {**about, "title": "A loop", "stacked": False, "reason": "its_own", "difference": 0.5},
        "third": {**about, "title": "A failure", "kind": "sound", "works": False, "error": "E: it failed"},
        "fourth": {**about, "title": "A mistake", "mistake": True, "error": "TaskError: wrong [1]"},
    }
    file = tmp_path / "compatibility.json"
    file.write_text(json.dumps({"command": "python x.py", "versions": {"torch": "2"}, "situations": rows}))
    text = compatibility_docs.situations(file)

    assert "| A stack | yes | together, in a stack | 2e-07 | 3.2× | – |" in text
    assert "| A loop | yes | one at a time: its\\_own | **5e-01** | – | – |" in text
    assert "### sound" in text
    assert "| A failure | **no** | E: it failed |" in text
    assert "A mistake" not in text
    assert "| A mistake | TaskError: wrong \\[1\\] |" in compatibility_docs.mistakes(file)
    assert compatibility_docs.made_by(file).startswith("`python x.py`, torch 2.")


def test_the_speed_table_is_made_of_the_file(tmp_path: Path) -> None:
    row = {"work": "one tensor", "class": "NAdam", "seconds": {"ours": 0.02, "default": 0.14, "memory": 0.017}}
    file = tmp_path / "step.json"
    record = {
        "machine": {"cores": 2, "cpu": "x"},
        "versions": {"torch": "2"},
        "first_call": {"ours": 0.1, "trivial": 0.2},
    }
    file.write_text(json.dumps({"command": "python benchmarks/step.py", "rows": [row], **record}))

    assert "| `NAdam` | 20 ms | 7.00× | 85% |" in speed_docs.speed(file)


def test_a_race_is_seldom_wrong_when_all_of_it_is_repeated() -> None:
    record = json.loads((ROOT / "studies" / "verdict_simulation.json").read_text())
    assert record["races"] == 2_000
    assert len(record["conditions"]) == 40
    assert min(each["covered"] for each in record["conditions"]) >= 0.94
    assert max(each["false_claim"] for each in record["conditions"]) <= 0.06
    assert max(each["median_bound"] for each in record["conditions"]) <= 1
    ahead = [each for each in record["conditions"] if each["means"] == "two margins"]
    assert min(each["best_recommended"] for each in ahead) >= 0.95


def test_the_protocol_is_the_codes() -> None:
    # When one of these changes, docs/protocol.md and docs/how-to-choose.md do too.
    assert (tuner.SPREAD, tuner.REFINE, 3 * tuner.REPLICATED, learning_rate_grid.MIN_FINALIST_GAP) == (6, 4, 9, 2)
    assert learning_rate_grid.MANTISSAS == (1.0, 1.5, 2.2, 3.3, 4.7, 6.8)
    assert (race.TRIALS, race.SEEDS, permutation_test.LEVEL, permutation_test.EXHAUSTIVE) == (26, 32, 0.05, 16)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_prompts_print_what_the_page_says(page: Path) -> None:
    blocks = [body for kind, body in FENCE.findall(page.read_text()) if kind == "pycon"]
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.stem, str(page), 0)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)

    assert not said, "".join(said)


NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.md"))
SCRIPTS = [page for page in PAGES if "```python" in page.read_text() and page not in NOTEBOOKS]


@pytest.mark.parametrize("page", SCRIPTS, ids=named)
def test_scripts_run_and_print_what_the_page_says(page: Path, tmp_path: Path) -> None:
    blocks = FENCE.findall(page.read_text())
    file = tmp_path / "page.py"
    file.write_text("\n".join(body for kind, body in blocks if kind == "python"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(file), run_name="__main__")

    assert printed.getvalue() == "".join(body for kind, body in blocks if kind == "text")


def test_the_rule_of_the_readme_is_the_source_of_that_rule() -> None:
    (block,) = (body for kind, body in FENCE.findall((ROOT / "README.md").read_text()) if body.startswith("@rule("))
    (name,) = re.findall(r"^def (\w+)", block, re.MULTILINE)

    assert block == inspect.getsource(getattr(rules, name).function)


@pytest.mark.parametrize("page", NOTEBOOKS, ids=named)
def test_a_notebook_runs_from_top_to_bottom(page: Path) -> None:
    notebook = jupytext.read(page)
    with warnings.catch_warnings(action="ignore"):  # of the kernel's connection
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    drawn = {i for i, cell in enumerate(cells, 1) if any("image/png" in each.get("data", {}) for each in cell.outputs)}
    assert drawn == {int(file.stem) for file in page.with_suffix("").glob("*.svg")}


def test_every_notebook_has_exercises_with_answers() -> None:
    for page in NOTEBOOKS:
        text = page.read_text()
        assert text.count("**Exercise ") == text.count("<summary>Answer</summary>") >= 4


def test_every_page_is_in_one_class() -> None:
    text = (DOCS / "index.md").read_text()
    listed = [name for body in TOCTREE.findall(text) for name in body.split("\n\n")[1].split()]
    below = {page for page in PAGES if page.parent.name in ("optimizers", "gallery")}
    assert len(listed) == len(set(listed))
    starts = {DOCS / "optimizers" / "index.md", DOCS / "gallery" / "index.md"}
    assert {DOCS / f"{name}.md" for name in listed} == {*PAGES} - {DOCS / "index.md"} - below | starts


def test_every_page_of_the_gallery_shows_a_script_and_its_output() -> None:
    sys.path.insert(0, str(DOCS))
    try:
        import gallery
    finally:
        sys.path.remove(str(DOCS))
    pages = {page.stem: page.read_text() for page in (DOCS / "gallery").glob("*.md") if page.stem != "index"}
    assert pages.keys() == gallery.EXAMPLES.keys()
    assert len(pages) >= 10
    for name, text in pages.items():
        assert f"{{literalinclude}} ../../{gallery.EXAMPLES[name]}" in text
        assert f"{{literalinclude}} {name}.txt" in text
        figures = re.findall(r"^!\[(.+)\]\((\S+\.svg)\)$", text, re.MULTILINE)
        assert figures
        assert all((DOCS / "gallery" / file).exists() for _, file in figures)


def test_the_page_of_the_command_line_has_every_option() -> None:
    text = command_docs.commands()
    for name in ("gradprix race", "gradprix tune", "gradprix data fetch"):
        assert f"## {name}\n" in text
    assert "| `--minutes" in text
    race = text.partition("## gradprix race\n")[2].partition("\n## ")[0]
    assert "\ngradprix race digits --plan " in race


def commands(text: str) -> list[str]:
    """Return the commands of gradprix in the code of a page."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```$|((?:^ {4}.*\n)+)", text, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^(?:\$ | {4})?(gradprix [a-z].*)$", "\n".join(map("".join, blocks)), re.MULTILINE)
    return [*lines, *re.findall(r"`(gradprix [a-z][^`\n]*)`", text)]


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_commands_exist_with_their_options(page: Path) -> None:
    for line in commands(page.read_text()):
        command, arguments = typer.main.get_command(app), shlex.split(line, comments=True)[1:]
        while arguments and arguments[0] in getattr(command, "commands", {}):
            command = command.commands[arguments.pop(0)]
        if hasattr(command, "commands"):
            assert not arguments, line
        else:
            context = command.make_context("gradprix", [], resilient_parsing=True)
            command.make_parser(context).parse_args(arguments)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_pages_outside_the_site_resolve(name: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text())
    assert links
    assert not [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]


def test_a_figure_of_a_path_says_what_it_shows() -> None:
    text = path_docs.path(rules.lion)
    assert 'aria-label="Lion (lr=' in text
    assert "60 steps in a ravine of condition number 30" in text
    assert colour("lion") in text
    assert "of matrices" in path_docs.path(rules.soap)


def test_the_code_of_the_readme_runs(tmp_path: Path) -> None:
    code = "\n".join(body for kind, body in FENCE.findall((ROOT / "README.md").read_text()) if kind == "python")
    race = 'gp.race(task, "adamw,nadam,nesterov")'
    assert race in code
    file = tmp_path / "readme.py"
    file.write_text(code.replace(race, race.replace('")', '", trials=6, seeds=6)')))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(file), run_name="__main__")

    assert printed.getvalue().startswith("iris: ")


def test_the_site_builds_without_a_warning_and_fetches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sphinx.cmd.build import build_main

    options = ["-W", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    with warnings.catch_warnings(action="ignore"):
        code = build_main([*options, str(DOCS), str(tmp_path / "site")])

    assert code == 0, capsys.readouterr().err
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(rules.ALL)
    assert (tmp_path / "site" / ".nojekyll").exists()
    assert (tmp_path / "site" / "landscape" / "index.html").exists()
    for page in pages:
        text = page.read_text()
        links = set(re.findall(r"<(?:a|img|link|script)\b[^>]*(?:href|src)=\"([^\"#?:]+)[\"#?]", text))
        assert not [link for link in links if not (page.parent / link).exists()], page
        assert not re.findall(r"<(?:script|img|iframe)[^>]*src=[\"'](?:https?:)?//[^>]*>", text)
        assert not re.findall(
            r"<link[^>]*rel=[\"'](?:stylesheet|preload|preconnect)[^>]*href=[\"'](?:https?:)?//", text
        )
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text())
