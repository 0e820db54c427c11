from collections.abc import Callable

import pytest

from bitline.chip import Chip, load, presets, replace
from bitline.chip.files import source
from bitline.errors import ChipError


def refusal(*args: object) -> str:
    with pytest.raises(ChipError) as error:
        load(*args)  # pyright: ignore[reportArgumentType]
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("adc.bits=6", lambda chip: chip.adc.bits == 6),
        ("adc.bits = 6", lambda chip: chip.adc.bits == 6),
        ("adc.policy=full", lambda chip: chip.adc.policy == "full"),
        ('adc.policy="full"', lambda chip: chip.adc.policy == "full"),
        ("cell.g_max=50 uS", lambda chip: chip.cell.g_max == 5e-5),
        ('cell.g_max="50 uS"', lambda chip: chip.cell.g_max == 5e-5),
        ("cell.g_min=0", lambda chip: chip.cell.g_min == 0),
        ("cell.programming.sigma=0", lambda chip: chip.cell.programming.sigma == 0),
        ("cell.programming=ideal", lambda chip: chip.cell.programming.kind == "ideal"),
        ("cell.read_noise=none", lambda chip: chip.cell.read_noise.kind == "none"),
        ("weights.encoding=pair", lambda chip: chip.weights.encoding.subtract == "analog"),
        ("weights.encoding={kind='pair', subtract='digital'}", lambda chip: chip.converted_sides == 2),
        ("timing.sample_and_hold=false", lambda chip: chip.timing.sample_and_hold is False),
        ("crossbar.active_rows=32", lambda chip: chip.crossbar.row_tiles == 4),
        ("crossbar.rows=64", lambda chip: chip.crossbar.active_rows == 64),
        ("crossbar.rows=256", lambda chip: chip.crossbar.active_rows == 256),
    ],
)
def test_an_override_reaches_its_key_when_reading_and_when_replacing(override, value):
    assert value(load("example-128", [override]))
    assert value(replace(load("example-128"), override))


def test_overrides_apply_in_order_and_the_last_wins():
    assert load("example-128", ["adc.bits=3", "adc.bits=4"]).adc.bits == 4


def test_an_override_below_an_encoding_given_by_name_keeps_the_name():
    assert load("rram-22nm", ["weights.encoding.sum=column"]).reference_columns == 1


def test_fewer_active_rows_stay_when_the_crossbar_grows():
    chip = load("example-128", ["crossbar.active_rows=32"])
    assert replace(chip, "crossbar.rows=256").crossbar.active_rows == 32


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("adc.bits", "override 'adc.bits' is not KEY=VALUE, for example adc.bits=6"),
        ("=6", "override '=6' is not KEY=VALUE, for example adc.bits=6"),
        ("adc..bits=6", "override 'adc..bits=6' is not KEY=VALUE, for example adc.bits=6"),
        ("deviations.x=6", "override 'deviations.x=6': deviations is a value, not a section"),
        ("adc.bit=6", "unknown key adc.bit; did you mean 'bits'?"),
        ("adc.bits=six", "adc.bits = 'six': input should be a valid integer"),
        ("adc.bits=", "adc.bits = '': input should be a valid integer"),
        (
            "weights.encoding.sum=column",
            "weights.encoding.kind is missing; allowed: 'offset', 'pair', 'twos_complement'",
        ),
    ],
)
def test_an_impossible_override_is_refused(override, message):
    assert message in refusal("example-128", [override])


def test_an_unknown_preset_is_refused_with_the_nearest_and_all_names():
    assert refusal("rram-22") == (
        f"no chip 'rram-22': neither a file nor a preset; did you mean 'rram-22nm'?; presets: {', '.join(presets())}"
    )


def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("name = \n")
    assert refusal(file).startswith(f"{file} is not TOML: Invalid value")


def test_a_file_that_is_not_text_is_refused_by_name(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert refusal(file).startswith(f"cannot read {file}: ")


def test_a_directory_is_no_chip(tmp_path):
    assert refusal(tmp_path).startswith(f"no chip '{tmp_path}': neither a file nor a preset")


def test_every_problem_of_a_file_names_the_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(source("example-128").replace("rows = 128", "rows = 0").replace("bits = 6", "bits = 0"))
    assert refusal(file).splitlines() == [
        f"{file}: crossbar.rows = 0: input should be greater than or equal to 1",
        f"{file}: adc.bits = 0: input should be greater than or equal to 1",
    ]


def test_a_file_of_ones_own_reads_as_a_preset_does(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(source("rram-22nm"))
    assert load(file) == load("rram-22nm")
    assert load(str(file)) == load("rram-22nm")


def loaded(keys: list[str]) -> Chip:
    return load("example-128", keys)


def replaced(keys: list[str]) -> Chip:
    return replace(load("example-128"), *keys)


@pytest.mark.parametrize("change", [loaded, replaced])
def test_another_kind_leaves_the_keys_of_the_kind_before_behind(change: Callable[[list[str]], Chip]):
    chip = change(["cell.read_noise.kind=none", "weights.encoding.kind=pair"])
    assert chip == change(["cell.read_noise={kind='none'}", "weights.encoding={kind='pair'}"])
    assert change(["cell.read_noise.kind=absolute"]) == load("example-128"), "the kind that it has already"
    with pytest.raises(ChipError, match=r"read_noise.sigma is missing"):  # 0.3 uS is no share of a conductance
        change(["cell.read_noise.kind=proportional"])
    keys = ["cell.read_noise.sigma=0.01", "cell.read_noise.kind=proportional"]
    assert change(keys) == change(keys[::-1]) == change(["cell.read_noise={kind='proportional', sigma=0.01}"])


def test_a_kind_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(ChipError, match=r"read_noise.kind = 'nothing'.*: 'none', 'absolute', 'proportional'"):
        load("example-128", ["cell.read_noise.kind=nothing"])
