"""Table of several races in LaTeX: cells, marks, counts and ranks, from records with known numbers."""

import math
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

import gradprix as gp
from command_line import gradprix
from gradprix.race import make_plan, run
from gradprix.show.latex import escape_latex, latex_table
from gradprix.show.latex_race import entries_table, verdict_table
from records import make_record, replace_entry
from untimed import Untimed

NOISE = [-0.002, 0.001, 0.003, -0.001, 0.002, -0.003, 0.001, -0.001]


def values(**means: float) -> dict[str, list[float]]:
    """Values of each entry, all with the same noise, so that every difference of means is significant."""
    return {name: [mean + noise for noise in NOISE] for name, mean in means.items()}


RECORDS = {
    "far_apart": make_record(values(adam=0.97, sgd=0.90, lion=0.95)),  # all differences are significant and large
    "loss & more": make_record(values(adam=2.002, sgd=2.0, lion=2.0), higher_is_better=False, percent=False),
    "partly": make_record({**values(adam=0.9, sgd=0.9), "lion": [0.9 + 30 * x for x in NOISE]}, baseline="adam"),
}


def parsed(table: str) -> dict[str, list[str]]:
    """Cells of each row, by its first cell."""
    assert table.count(r"\begin{tabular}") == table.count(r"\end{tabular}") == 1
    body = table[table.index(r"\toprule") : table.index(r"\bottomrule")].splitlines()
    lines = [line for line in body if line not in (r"\toprule", r"\midrule")]
    assert all(line.endswith(r" \\") for line in lines)
    rows = [line.removesuffix(r" \\").split(" & ") for line in (line.replace(r"\&", "AND") for line in lines)]
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", table)
    assert columns is not None
    assert {len(row) for row in rows} == {len(columns[1])}
    assert table.count("{") - table.count(r"\{") == table.count("}") - table.count(r"\}")
    assert table.count("$") % 2 == 0
    return {row[0]: row[1:] for row in rows}


def test_cells_have_means_with_intervals_and_marks() -> None:
    rows = parsed(latex_table(RECORDS))
    assert rows[""] == ["adam", "sgd", "lion"]
    far, loss, partly = list(rows.values())[1:4]
    low, high = RECORDS["far_apart"].entry("adam").final.ci95
    half = f"{100 * (high - low) / 2:.1f}"
    assert far == [rf"$\boldsymbol{{97.0 \pm {half}}}$", rf"$90.0 \pm {half}^{{*}}$", rf"$95.0 \pm {half}^{{*}}$"]
    assert [r"\boldsymbol" in cell for cell in loss] == [False, True, False]
    assert loss[0].endswith(r"^{\circ}$"), "significant, but within the margin of 0.005"
    assert not re.search(r"\^", loss[2]), "equal values"
    assert partly[2].endswith("^{?}$") or r"\boldsymbol" in partly[2] or "^" not in partly[2]


def test_names_are_escaped() -> None:
    table = latex_table(RECORDS)
    assert [row for row in parsed(table) if row.startswith("far")] == [r"far\_apart (test accuracy, \%) $\uparrow$"]
    assert r"loss \& more (test accuracy) $\downarrow$" in table
    assert escape_latex("a_b\\c{d}$e&f%g#h~i^j\nk") == (
        r"a\_b\textbackslash{}c\{d\}\$e\&f\%g\#h\textasciitilde{}i\textasciicircum{}j k"
    )


def test_the_last_rows_count_significant_differences() -> None:
    rows = parsed(latex_table(RECORDS))
    # adam wins twice in the first race, loses twice in the second; sgd loses twice, then wins once and ties once; ...
    assert rows["wins/ties/losses"] == ["2/2/2", "1/3/2", "2/3/1"]
    assert rows["mean rank"] == [f"{rank:.2f}" for rank in ((1 + 3 + 2) / 3, (3 + 1.5 + 2) / 3, (2 + 1.5 + 2) / 3)]


def test_entries_that_are_not_in_all_races_have_no_rank() -> None:
    more = make_record(values(adam=0.9, nadam=0.8, sgd=0.85))
    rows = parsed(latex_table({"one": RECORDS["far_apart"], "other": more}))
    assert rows[""] == ["adam", "sgd", "lion", "nadam"]
    one, other = list(rows.values())[1:3]
    assert (one[3], other[2]) == ("--", "--")
    assert rows["wins/ties/losses"] == ["2/0/0", "0/0/2", "--", "--"]
    assert rows["mean rank"] == ["1.00", "2.00", "--", "--"]


def test_standard_errors() -> None:
    entry = RECORDS["far_apart"].entry("sgd").final
    error = 100 * statistics.stdev(entry.values) / math.sqrt(len(entry.values))
    (far,) = (cells for name, cells in parsed(latex_table(RECORDS, "se")).items() if name.startswith("far"))
    assert far[1] == rf"$90.000 \pm {error:.3f}^{{*}}$"


def test_large_numbers_are_powers_of_ten() -> None:
    huge = make_record(values(adam=3e7, sgd=1.0), higher_is_better=False, percent=False)
    assert r"3.0 \cdot 10^{7}" in latex_table({"huge": huge})


def test_the_caption_says_who_is_ranked_and_how() -> None:
    table = latex_table(RECORDS)
    assert "count the optimizers that are in all races" in table
    assert "the mean rank is the average over the races" in table


def test_the_tables_of_a_race_have_the_values_of_the_terminal() -> None:
    tuned = {"lr": 0.018, "nesterov": True}
    record = replace_entry(RECORDS["far_apart"], "adam", tuned=tuned, tolerance_decades=0.416825)
    record = replace_entry(record, "sgd", tuned={"lr": 0.0123456}, bound=None)
    entries, verdict = entries_table(record), verdict_table(record)
    rows = parsed(entries)
    assert list(rows) == ["optimizer", "adam", "lion", "sgd"]
    titles = dict(zip(rows.pop("optimizer"), zip(*rows.values(), strict=True), strict=True))
    assert list(titles)[:2] == [r"test accuracy, \%", "at most behind, points"]
    assert titles["learning rate"] == ("$0.018$", "$0.1$", "$0.01235$")
    assert titles["nesterov"] == ("True", "--", "--")
    assert titles["tolerance"][0] == r"$\times 2.6$"
    assert titles["at most behind, points"][2] == "--"
    assert re.fullmatch(r"\$97\.0 \\pm \d\.\d\$", titles[r"test accuracy, \%"][0])
    first = next(line for line in verdict.splitlines() if line.startswith("adam & sgd &"))
    assert first.split(" & ")[2] == "$+7.00$"
    for table in (entries, verdict):
        assert not re.search(r"\d\.\d{6}|-0\.0+\b|more\\_seeds|window", table)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX")
def test_the_table_compiles(tmp_path: Path) -> None:
    head = r"\documentclass{article}\usepackage{booktabs,amsmath}\begin{document}"
    record = RECORDS["far_apart"]
    tables = "\n\n".join([latex_table(RECORDS), entries_table(record), verdict_table(record)])
    (tmp_path / "table.tex").write_text(f"{head}\n{tables}\n\\end{{document}}")
    subprocess.run(["pdflatex", "-halt-on-error", "table.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_the_command_exports_several_races(tmp_path: Path) -> None:
    small: dict[str, Any] = {"optimizers": "adam,momentum", "trials": 2, "seeds": 6}
    for name, epochs in (("short", 1), ("long", 2)):
        run(make_plan("digits", **small, epochs=epochs), tmp_path / "suite" / name, Untimed(1))
    done = gradprix("export", "suite", "--to", "latex", folder=tmp_path)
    table = (tmp_path / "suite" / "races.tex").read_text()
    assert done.stdout.strip() == str(Path("suite", "races.tex"))
    rows = parsed(table)
    titles = [str(Path("suite", name)) for name in ("long", "short")]  # both are races on digits
    assert [title.partition(" (")[0] for title in list(rows)[1:3]] == titles
    mean = gp.load(tmp_path / "suite" / "long").record.ranking[0].final.mean
    assert f"{100 * mean:.1f}"[:4] in table
    both = ["suite/short", "suite/long"]
    gradprix("export", *both, "--to", "latex", "--error", "se", "--out", "paper", folder=tmp_path)
    gradprix("export", both[0], str(tmp_path / both[1]), "--to", "latex", folder=tmp_path)
    assert "standard error" in (tmp_path / "paper" / "races.tex").read_text()
    files = gradprix("export", *both, "--out", "tables", folder=tmp_path).stdout.split()
    assert len(files) == 10
    assert (tmp_path / "tables" / "long" / "entries.csv").exists()
    assert "holds no race" in gradprix("export", "nowhere", folder=tmp_path, code=2).stderr
