"""The section Why of a report, and the same in the terminal: values always, bold and words where they are certain."""

from typing import Any

import pytest
from msgspec.structs import replace

from gradprix.race.diagnosis_record import (
    Diagnosis,
    EntryDiagnosis,
    FamilyContrast,
    Finding,
    Measurement,
    MeasurementKind,
    Ratio,
    Trait,
    UpdateStatistics,
)
from gradprix.race.record import RaceRecord
from gradprix.show import report
from gradprix.show._why import format_diagnosis
from gradprix.show.terminal import console, reasons
from gradprix.text.units import format_quantity
from records import make_record

UPDATES = UpdateStatistics(step=(1, 50, 100), rate=(0.1, 0.2, None), ratio=(0.1, 0.1, 0.1), cosine=(1.0, 0.5, 0.2))
NOTHING = UpdateStatistics(step=(), rate=(), ratio=(), cosine=())
KIND = MeasurementKind


def measured(kind: KIND, number: float | None, low: float | None, high: float | None, **given: Any) -> Measurement:
    return Measurement(kind=kind, number=number, low=low, high=high, n=8, **given)


def ratio(number: float, is_large: bool) -> Ratio:
    return Ratio(number=number, low=0.9 * number, high=1.1 * number, is_large=is_large)


def diagnosed(
    *measurements: Measurement, families: tuple[FamilyContrast, ...] = (), updates: Any = UPDATES
) -> RaceRecord:
    """A race of two entries, of which the first has these measurements."""
    record = make_record({"adam": [0.91, 0.92, 0.9, 0.91, 0.92, 0.9], "slow": [0.81, 0.82, 0.8, 0.81, 0.82, 0.8]})
    entries = {
        "adam": EntryDiagnosis(measurements=measurements, updates=updates),
        "slow": EntryDiagnosis(measurements=(), updates=NOTHING),
    }
    diagnosis = Diagnosis(identity=("key", 4), budget=60.0, runs=8, seconds=70.0, entries=entries, families=families)
    return replace(record, diagnosis=diagnosis)


LOSS = measured(KIND.TRAINING_LOSS, 0.0025, 0.0021, 0.0031, comparison=ratio(2.5, True), finding=Finding.UNDERFITS)
CELLS: dict[str, tuple[Measurement, tuple[str, str, bool]]] = {
    "a level": (LOSS, ("0.0025", "0.0021 to 0.0031", True)),
    "not certain": (
        measured(KIND.CURVATURE, 12.34, 9.0, 17.0, comparison=ratio(1.2, False)),
        ("12", "9.0 to 17", False),
    ),
    "a share": (measured(KIND.STABILITY, 0.884, 0.67, 1.14), ("88\u00a0%", "67 to 114", False)),
    "a small share": (measured(KIND.STABILITY, 0.0641, 0.0441, 0.0934), ("6.4\u00a0%", "4.4 to 9.3", False)),
    "no upper end": (measured(KIND.NOISE_SCALE, 5.8, 2.4, None), ("5.8", "above 2.4", False)),
    "infinite": (measured(KIND.NOISE_SCALE, None, 2.4, None), ("above 2.4", "", False)),
    "exact": (measured(KIND.RATE_KEPT, 1.0, 1.0, 1.0), ("100\u00a0%", "", False)),
    "negative": (measured(KIND.STEP_LENGTH, -0.5, -1.25, 0.5), ("−50\u00a0%", "−125 to 50", False)),
}


@pytest.mark.parametrize("name", CELLS)
def test_every_value_is_shown_with_its_interval(name: str) -> None:
    measurement, cell = CELLS[name]
    (table,) = format_diagnosis(diagnosed(measurement))["tables"].values()

    assert [tuple(estimate) for estimate in table["rows"]["adam"]] == [cell]
    assert [estimate.number for estimate in table["rows"]["slow"]] == ["–"]


def test_what_is_unknown_for_all_is_left_out_with_a_reason() -> None:
    section = format_diagnosis(diagnosed(LOSS, measured(KIND.HARDEST_TENTH, None, None, None)))

    (table,) = section["tables"].values()
    assert [column.label for column in table["columns"]] == ["final training loss"]
    assert section["missing"] == [
        "Not shown, because noise hides them in so few measurements: hardest tenth. Larger models of the task or more "
        "final seeds would show them."
    ]


def test_without_a_finding_it_is_said_what_would_make_one() -> None:
    section = format_diagnosis(diagnosed(measured(KIND.CURVATURE, 3.0, 2.0, 4.0)))

    assert section["findings"] == []
    assert section["missing"][0].startswith("No cause is significant in 8 final runs of each optimizer.")
    assert "--seeds" in section["missing"][0]
    assert "not compared" in section["missing"][1]
    assert "No cause is significant" in report(diagnosed(measured(KIND.CURVATURE, 3.0, 2.0, 4.0)))


def contrast(trait: Trait, kind: KIND, number: float, is_large: bool = True) -> FamilyContrast:
    return FamilyContrast(
        trait=trait, kind=kind, members=("adam",), others=("slow", "sgd"), ratio=ratio(number, is_large)
    )


@pytest.mark.parametrize(
    ("contrasts", "sentences"),
    [
        ([contrast(Trait.MOMENTUM, KIND.STABILITY, 0.9, is_large=False)], []),
        (
            [contrast(Trait.MOMENTUM, KIND.TRAINING_LOSS, 0.2), contrast(Trait.MOMENTUM, KIND.STABILITY, 0.1)],
            [
                "With momentum, compared to without, other things equal: 0.20 times (0.18 to 0.22) the final training "
                "loss; 0.10 times (0.090 to 0.11) the share of the stability limit. Momentum raises the stability "
                "limit, so that curvature leaves room for a larger learning rate."
            ],
        ),
        (  # the mechanism of adaptive learning rates takes both ratios
            [contrast(Trait.ADAPTIVE, KIND.GAIN, 3.0)],
            [
                "With adaptive learning rates, compared to without, other things equal: 3.0 times (2.7 to 3.3) the "
                "long-run learning rate."
            ],
        ),
    ],
)
def test_families_have_one_sentence_each_if_they_surely_differ(
    contrasts: list[FamilyContrast], sentences: list[str]
) -> None:
    section = format_diagnosis(diagnosed(LOSS, families=tuple(contrasts)))

    assert [text for subject, text in section["findings"] if not subject] == sentences
    assert len(section["families"]) == len(contrasts)


def test_page_and_terminal_have_the_same_conclusions() -> None:
    record = diagnosed(LOSS, families=(contrast(Trait.MOMENTUM, KIND.STABILITY, 0.1),))
    output = console()
    with output.capture() as capture:
        for line in reasons(record):
            output.print(line)
    printed, page = " ".join(capture.get().split()), " ".join(report(record).split())

    for _, text in format_diagnosis(record)["findings"]:
        assert text in printed
        assert text in page
    assert "<b>0.0025</b>" in page
    assert len(page) < 400_000


def test_a_race_all_of_whose_runs_diverged_has_a_page() -> None:
    page = report(diagnosed(measured(KIND.DIVERGED, 1.0, 1.0, 1.0, finding=Finding.DIVERGED), updates=NOTHING))

    assert 'id="why"' in page
    assert "final runs diverged" in page


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (0.00253, "0.0025"),
        (9.99, "10"),
        (1590.0, "1,600"),
        (1.25e-7, "1.2 × 10⁻⁷"),
        (2.5e9, "2.5 × 10⁹"),
        (-0.5, "−0.50"),
        (float("inf"), "∞"),
    ],
)
def test_numbers_have_two_digits_and_no_exponent_of_a_programmer(number: float, text: str) -> None:
    assert format_quantity(number) == text
