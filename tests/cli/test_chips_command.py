import json
import sys

import pytest
from typer.testing import CliRunner

from bitline.chip import load, presets
from bitline.chip.description import Chip
from bitline.chip.files import source
from bitline.cli import app, main
from bitline.errors import ChipError

run = CliRunner(env={"COLUMNS": "200"}).invoke


def test_the_table_has_every_preset_with_its_doi():
    text = run(app, ["chips"]).stdout
    for name in presets():
        chip = load(name)
        assert name in text
        assert (chip.doi or "made up, not published") in text
        assert chip.about in text
    assert "128 x 128" in text
    assert "median: the median published" in text


def test_show_prints_the_file_with_its_comments():
    assert run(app, ["chips", "show", "crimp-32nm"]).stdout == source("crimp-32nm")


def test_show_as_json_is_the_whole_chip_with_overrides():
    text = run(
        app, ["chips", "show", "crimp-32nm", "--json", "-", "--set", "adc.bits=3", "--set", "crossbar.rows=64"]
    ).stdout
    chip = Chip.model_validate(json.loads(text))
    assert chip == load("crimp-32nm", ["adc.bits=3", "crossbar.rows=64"])
    assert json.loads(text)["inputs"]["bits"] == 8


def test_check_says_what_a_chip_offers(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(source("example-128"))
    assert run(app, ["chips", "check", str(file)]).stdout.splitlines() == [
        "example-128: 128 x 128 crossbars, 32 nm",
        "  weights   8 bits as offset in 4 cells of 2 bits; 32 weight columns a crossbar",
        "  inputs    8 bits, 1 at a time",
        "  sums      0 to 384 levels",
        "  ADC       6 bits, calibrated; lossless from 9 bits; priced by model isaac (one paper's, ISAAC)",
        "  no effect adc.percentile, inputs.percentile, mitigation.tolerance",
        "            (other values of one of these change neither what a small network answers nor its cost)",
    ]
    settings = ["weights.encoding=pair", "crossbar.active_rows=32", "cell.leak=kept", "dac.bits=2"]
    told = run(app, ["chips", "check", str(file), *(part for s in settings for part in ("--set", s))]).stdout
    assert "4 row tiles of 32" in told
    assert "8 bits as pair in 8 cells of 2 bits; 16 weight columns a crossbar" in told
    assert "-288 to 288 levels" in told
    assert "lossless from 10 bits; with the leak kept, sums lie between levels and always round" in told


@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        ((), 9),
        (("cell.bits=1",), 8),
        (("crossbar.rows=127", "cell.bits=1"), 7),
        (("weights.encoding=pair",), 10),
        (("weights.encoding={kind='pair', subtract='digital'}",), 9),
        (("dac.bits=8",), 17),
    ],
)
def test_lossless_bits_tell_every_sum_apart_and_one_fewer_does_not(settings, bits):
    chip = load("example-128", settings)
    low, high = chip.sum_limits
    assert chip.lossless_bits == bits

    def holds(width: int) -> bool:
        return (-(2 ** (width - 1)) <= low and high < 2 ** (width - 1)) if low else high < 2**width

    assert holds(bits)
    assert not holds(bits - 1)


def test_a_bad_chip_ends_with_status_1_and_a_line_a_problem(tmp_path, monkeypatch, capsys):
    file = tmp_path / "mine.toml"
    file.write_text(source("example-128").replace("rows = 128", "rows = 0").replace("bits = 6", "bitz = 6"))
    monkeypatch.setattr(sys, "argv", ["bitline", "chips", "check", str(file)])
    with pytest.raises(SystemExit) as status:
        main()
    assert status.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {file}: crossbar.rows = 0: input should be greater than or equal to 1"
    assert lines[1] == f"{file}: adc.bits is missing"
    assert lines[2].startswith(f"{file}: unknown key adc.bitz; did you mean 'bits'?")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("adc.bits=13", "adc.bits = 13: cost model 'isaac' of ADCs holds for 1 to 12 bits"),
        ("cost_table=none", "no cost table 'none'"),
        ("timing.clock=18 GHz", "timing.clock = 18 GHz: logic at 32 nm reaches 15.62 GHz at most"),
        ("system.buffer_kib=5000", "system.buffer_kib = 5000: the SRAM grid covers 2 to 4096 KiB"),
    ],
)
def test_check_refuses_a_chip_that_nothing_can_be_priced_on(override, message, monkeypatch, capsys):
    more = ["--set", "cost_table=neurosim-22nm"] if "buffer" in override else []
    monkeypatch.setattr(sys, "argv", ["bitline", "chips", "check", "example-128", *more, "--set", override])
    with pytest.raises(SystemExit) as status:
        main()
    assert status.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert next(line for line in err.splitlines() if "unusual" not in line).startswith(f"error: {message}")


def test_an_override_without_json_is_refused_by_show():
    refused = run(app, ["chips", "show", "example-128", "--set", "adc.bits=3"]).exception
    assert isinstance(refused, ChipError)
    assert str(refused) == "--set changes what a chip is, not its file; add --json"
