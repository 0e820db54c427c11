import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from bitline.report import print_evaluation, print_sweep
from evaluation_samples import deep, evaluation, record, sweep


def printed(found: dict[str, Any], width: int = 120) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    print_evaluation(record(found), console)
    return console.export_text()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width):
    assert max(cell_len(line) for line in printed(evaluation(), width).splitlines()) <= width


def test_the_terminal_tells_headline_loss_and_cost_with_its_span():
    words = " ".join(printed(evaluation()).split())
    for expected in (
        "float 91.20 % → ideal integer 91.00 % → 20 chips 88.30 ± 0.24 %, worst 87.81 %",
        "ADC 1.94 – 89.06",
        "energy 38.85 µJ 38.85 to 112.7 µJ across 4 ADC models; chosen: table",
        "classifier.0 linear 8,192 × 1,024 64 2,048 100.0 2,097,152 0.14 22.5",
        "total 3,176 157,288,960",
    ):
        assert expected in words


def test_a_wide_terminal_shows_every_column_and_a_narrow_one_names_those_left_out():
    wide, narrow = printed(evaluation(), 200), printed(evaluation(), 90)
    assert "no room" not in wide
    assert "programming" in wide.split("Layers on crossbars")[1]
    left_out = narrow.split("Layers on crossbars")[1].split("no room for: ")[1]
    assert "noise / signal power" in left_out
    assert "features.17" in narrow, "the layer itself always stays"


def test_names_are_never_read_as_markup():
    found = evaluation()
    found["model"] = found["layers"][0]["name"] = found["digital"][0]["why"] = "[red]x[/red]"
    assert printed(found).count("[red]x[/red]") == 3


def test_what_was_not_evaluated_is_told():
    found = evaluation()
    found["accuracy"] = {"float": 91.2, "ideal_integer": 91.0, "chips": []}
    found["seeds"] = []
    assert "not in this evaluation: accuracy of programmed chips" in printed(found)


def test_every_layer_of_a_deep_network_is_listed():
    words = printed(evaluation(deep(100)))
    assert all(name in words for name, *_ in deep(100))


def test_a_sweep_marks_the_chips_that_no_other_beats():
    console = Console(record=True, width=120, file=io.StringIO())
    print_sweep(sweep(), console)
    lines = console.export_text().splitlines()
    assert ["●" in line for line in lines if "-bit ADC" in line] == [True, True, True, False]


def test_overrides_written_as_settings_become_columns():
    console = Console(record=True, width=120, file=io.StringIO())
    variants = [
        variant.model_copy(update={"label": ", ".join(keys), "overrides": keys})
        for variant in sweep()[:2]
        for keys in [(*variant.overrides, "adc.policy=full")]
    ]
    print_sweep(variants, console)
    words = console.export_text()
    assert "adc.policy" in words
    assert "adc.bits=4" not in words, "the columns say it already"
    print_sweep([], console)
