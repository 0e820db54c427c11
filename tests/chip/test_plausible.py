"""Values that no chip has are refused with what was probably meant; unusual ones are remarked on, once."""

import logging
import tomllib
from collections.abc import Iterator, Sequence

import pytest
from pydantic import BaseModel

from bitline.chip import load, presets, replace
from bitline.chip.description import Chip
from bitline.chip.files import source
from bitline.chip.plausible import Plausible, plausible, records_of, remarks
from bitline.cost.model import price
from bitline.errors import ChipError
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place


def fields(models: Sequence[type[BaseModel]], where: str = "") -> Iterator[tuple[str, Plausible]]:
    """Every number of a chip that has a range."""
    for model in models:
        for key, field in model.model_fields.items():
            below = records_of(field.annotation)
            yield from fields(below, f"{where}{key}.")
            if not below and (limits := plausible(field)):
                yield f"{where}{key}", limits


FIELDS = list(fields([Chip]))


@pytest.mark.parametrize(("key", "limits"), FIELDS, ids=[key for key, _ in FIELDS])
def test_every_range_has_a_reason_and_holds_what_is_usual(key, limits):
    assert limits.why
    low, high = limits.usual or (limits.low, limits.high)
    assert limits.low <= low < high <= limits.high


def test_every_quantity_of_a_chip_has_a_range():
    keys = {key for key, _ in FIELDS}
    assert keys >= {
        *("node", "vdd", "cell.g_min", "cell.g_max", "cell.read_voltage", "cell.area_f2", "cell.access_resistance"),
        *("cell.programming.sigma", "cell.programming.mean", "cell.faults.stuck_off", "cell.read_noise.sigma"),
        *("crossbar.rows", "crossbar.cols", "crossbar.active_rows", "crossbar.segment_rows", "adc.range.low"),
        *("adc.columns_per_adc", "adc.sample_rate", "timing.read", "timing.pulse", "timing.clock", "weights.slices"),
        *("system.crossbars_per_macro", "system.macros_per_tile", "system.tiles", "system.buffer_kib"),
        *("system.bus_bits", "system.hops", "system.copies", "mitigation.verify", "mitigation.tolerance"),
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("node=22", 'node = 22 has no unit; write "22 nm"'),
        ("node=22e-9", 'node = 2.2e-08 has no unit; write "22 nm"'),
        ("vdd=0.85", 'vdd = 0.85 has no unit; write "850 mV"'),
        ("vdd=850", 'vdd = 850 has no unit; write "850 mV"'),
        ("cell.g_max=50", 'cell.g_max = 50 has no unit; write "50 uS"'),
        ("cell.g_max=5e-5", 'cell.g_max = 5e-05 has no unit; write "50 uS"'),
        ("timing.read=100", 'timing.read = 100 has no unit; write "100 ns"'),
        ("adc.sample_rate=1.28", 'adc.sample_rate = 1.28 has no unit; write "1.28 GHz"'),
        ("vdd=1e200", 'vdd = 1e+200 has no unit; write a number and V, such as "5 V"'),
        (f"vdd={'9' * 400}", 'vdd = a number of about 400 digits has no unit; write a number and V, such as "5 V"'),
        (
            "cell.programming={kind='gaussian_absolute', sigma=3}",
            'cell.programming.sigma = 3 has no unit; write "3 uS"',
        ),
        (
            "cell.programming={kind='per_level', sigma=['1 uS', '1 uS', '1 uS', 2]}",
            'cell.programming.sigma = 2 has no unit; write "2 uS"',
        ),
    ],
)
def test_a_bare_number_is_refused_with_the_unit_that_was_probably_meant(override, message):
    for read in (lambda: load("rram-22nm", [override]), lambda: replace(load("rram-22nm"), override)):
        with pytest.raises(ChipError) as error:
            read()
        assert str(error.value) == f"chip rram-22nm: {message}"


def test_a_bare_number_in_a_file_is_refused_too(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(source("rram-22nm").replace('"22 nm"', "22").replace('"0.85 V" ', "0.85"))
    with pytest.raises(ChipError) as error:
        load(file)
    assert str(error.value).splitlines() == [
        f'{file}: node = 22 has no unit; write "22 nm"',
        f'{file}: vdd = 0.85 has no unit; write "850 mV"',
    ]


def test_zero_and_numbers_that_have_no_unit_are_read_as_they_are():
    chip = load("rram-22nm", ["cell.g_min=0", "cell.programming.sigma=0.1", "system.hops=2.5", "cell.area_f2=12"])
    assert (chip.cell.g_min, chip.cell.programming.sigma, chip.system.hops, chip.cell.area_f2) == (0, 0.1, 2.5, 12)


def test_records_made_in_python_take_si_numbers(make_chip):
    assert make_chip(node=22e-9, vdd=0.8, cell={"g_max": 5e-5}, timing={"read": 1e-8}).node == 22e-9


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("node=22 m", "node = 22 m is outside 500 pm to 1 um"),
        ("node=1 fm", "node = 1 fm is outside 500 pm to 1 um"),
        ("vdd=1 TV", "vdd = 1 TV is outside 100 mV to 5 V"),
        ("cell.g_max=50 S", "cell.g_max = 50 S is outside 1 pS to 10 mS"),
        ("cell.g_min=-1 uS", "cell.g_min = -1 uS is outside 0 S to 10 mS"),
        ("cell.read_voltage=5e-324 V", "cell.read_voltage = 4.941e-324 V is outside 1 mV to 5 V"),
        ("timing.read=100 s", "timing.read = 100 s is outside 10 ps to 1 ms"),
        ("timing.clock=1 Hz", "timing.clock = 1 Hz is outside 1 kHz to 20 GHz"),
        ("adc.sample_rate=1 Hz", "adc.sample_rate = 1 Hz is outside 1 kHz to 200 GHz"),
        ("system.tiles=1000000000000", "system.tiles = 1000000000000 is outside 1 to 1048576"),
        ("system.copies=1000000000", "system.copies = 1000000000 is outside 1 to 16384"),
        ("system.hops=1e308", "system.hops = 1e+308 is outside 0 to 2048"),
        ("crossbar.rows=1073741824", "crossbar.rows = 1073741824 is outside 1 to 16384"),
        ("crossbar.cols=1073741824", "crossbar.cols = 1073741824 is outside 1 to 262144"),
        ("cell.area_f2=1e-300", "cell.area_f2 = 1e-300 is outside 0.01 to 100000.0"),
        ("cell.programming.sigma=10", "cell.programming.sigma = 10.0 is outside 0 to 2"),
        ("timing.pulse=1 us", "timing: pulse = 1 us exceeds read = 2.051 ns"),
        ("cell.g_min=9.99 uS", "cell: g_max = 10 uS is less than 1.005 times g_min = 9.99 uS"),
    ],
)
def test_a_value_that_no_chip_has_is_refused_with_the_range(override, message):
    with pytest.raises(ChipError) as error:
        load("rram-22nm", [override])
    first = str(error.value).splitlines()[0]
    assert first.startswith(f"chip rram-22nm: {message}")


@pytest.mark.parametrize(
    "override",
    [
        "node=1 nm",  # 10 angstrom, on the roadmaps of 2030
        "cell.g_max=1 pS",  # ferroelectric tunnel junctions; transistors far below threshold
        "cell.area_f2=0.042",  # 3D NAND of 96 layers of 4 F2
        "crossbar.cols=147456",  # a page of 16 KiB and its spare bytes in 3D NAND
        "timing.clock=32768 Hz",  # a watch crystal
    ],
)
def test_what_devices_on_the_market_or_in_papers_have_is_accepted_and_priced(override):
    chip = load("example-128", [override, *(["cell.g_min=0"] if "g_max" in override else [])])
    cost = price(place([Matmul("m", "linear", 64, 10, inputs=64)], chip))
    assert all(0 <= value < 1e6 for value in (*cost.energy_parts.values(), *cost.area_parts.values(), cost.latency_s))


def test_a_forgotten_prefix_is_suggested():
    with pytest.raises(ChipError, match=r"node = 22 m is outside .*; did you mean 22 nm\?$"):
        load("rram-22nm", ["node=22 m"])


def test_ranges_hold_for_records_made_in_python(make_chip):
    for change in ({"node": 22.0}, {"timing": {"read": 100.0}}, {"system": {"hops": 1e308}}):
        with pytest.raises(ChipError, match="is outside"):
            make_chip(**change)


def test_an_unusual_value_is_remarked_on_once_where_it_is_read(caplog):
    with caplog.at_level(logging.WARNING, "bitline"):
        chip = load("rram-22nm", ["vdd=4 V", "cell.faults.stuck_off=0.5"])
        replace(chip, "adc.bits=6")
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        "chip rram-22nm: vdd = 4 V is unusual: mostly 400 mV to 3.5 V",
        "chip rram-22nm: cell.faults.stuck_off = 0.5 is unusual: mostly 0 to 0.3",
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "bitline"):
        replace(chip, "vdd=4.5 V")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", presets())
def test_presets_are_usual(name):
    assert list(remarks(load(name))) == []
    assert "node" in tomllib.loads(source(name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "x" * 101}, "name = 'xxxxx"),
        ({"name": "two\nlines"}, r"name = 'two\nlines': string should match"),
        ({"about": "x" * 2001}, "about = 'xxxxx"),
        ({"deviations": ["x"] * 101}, "deviations = ["),
    ],
)
def test_texts_have_a_longest_length_and_a_message_is_short(make_chip, change, message):
    with pytest.raises(ChipError) as error:
        make_chip(**change)
    assert str(error.value).startswith(f"chip: {message}")
    assert len(str(error.value)) < 250


def test_many_problems_are_counted_not_listed(make_chip):
    with pytest.raises(ChipError) as error:
        make_chip(**{f"key{i}": 1 for i in range(1000)})
    lines = str(error.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "chip: and 980 more"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deviations = " + "[" * 900 + "]" * 900, "is nested too deeply"),
        (f"vdd = {'1' * 5000}", "is not TOML: Exceeds the limit"),
        ("#" * 300_000, "has 300000 bytes; a chip file has 262144 at most"),
    ],
)
def test_a_file_beyond_what_a_chip_needs_is_refused_by_name(tmp_path, text, message):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ChipError) as error:
        load(file)
    assert str(error.value).startswith(f"{file} {message}")


def test_a_byte_order_mark_before_the_text_is_passed_over(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xef\xbb\xbf" + source("rram-22nm").encode())
    assert load(file) == load("rram-22nm")


@pytest.mark.parametrize(
    "text", ["5\n V", "5 V\n", "\t5 V", "５ V", "٣ V", "1_0 V", "0x5 V", "inf V", "5 V V", "--5 V"]
)
def test_a_quantity_is_ascii_digits_and_a_unit_on_one_line(make_chip, text):
    with pytest.raises(ChipError, match=r"is not a number with a unit|is not in V"):
        make_chip(vdd=text)


@pytest.mark.parametrize("text", ["1e9999999 V", "1e-9999999 V", "1e400 V", "1e-400 V", f"{'9' * 5000} V"])
def test_a_quantity_beyond_floating_point_is_refused(make_chip, text):
    with pytest.raises(ChipError, match=r"^chip: vdd: '.*'?\.* is beyond what a number can be$"):
        make_chip(vdd=text)
