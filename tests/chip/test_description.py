import pydantic
import pytest

from bitline.chip import load, presets, replace
from bitline.chip.cell import Ideal, LogNormal
from bitline.chip.description import Chip, check
from bitline.chip.formats import Offset, Pair
from bitline.chip.variants import ideal, lossless, same_sums, with_cells
from bitline.errors import ChipError

CELLS = "100 ohm, below a metallic filament or magnetic junction, to 1 Tohm, a ferroelectric tunnel junction; assumed"
SIGMA = "published cells have up to 0.5, and at 2 a level says nothing; assumed"
REFUSED = [
    ({"crossbar": {"rows": 0}}, "crossbar.rows = 0: input should be greater than or equal to 1"),
    ({"crossbar": {"rows": 8.0}}, "crossbar.rows = 8.0: input should be a valid integer"),
    ({"crossbar": {"rows": True}}, "crossbar.rows = True: input should be a valid integer"),
    ({"crossbar": {"cols": -3}}, "crossbar.cols = -3: input should be greater than or equal to 1"),
    ({"crossbar": {"active_rows": 9}}, "crossbar: active_rows = 9 exceeds rows = 8"),
    ({"crossbar": {"segment_rows": 9}}, "crossbar: segment_rows = 9 exceeds rows = 8"),
    ({"crossbar": {"active_rows": 0}}, "crossbar.active_rows = 0: input should be greater than or equal to 1"),
    (
        {"crossbar": {"colums": 3}},
        "unknown key crossbar.colums; did you mean 'cols'?; allowed here: rows, cols, active_rows, segment_rows",
    ),
    ({"crossbar": {"cols": 1}, "cell": {"bits": 2}}, "crossbar.cols = 1 holds no weight of 2 cells"),
    (
        {"crossbar": {"cols": 2}, "weights": {"encoding": {"kind": "offset", "sum": "column"}}},
        "crossbar.cols = 2 holds no weight of 2 cells beside its reference column",
    ),
    ({"cell": {"bits": 0}}, "cell.bits = 0: input should be greater than or equal to 1"),
    ({"cell": {"bits": 9}}, "cell.bits = 9: input should be less than or equal to 8"),
    ({"cell": {"g_min": "100 uS"}}, "cell: g_min = 100 uS must be less than g_max = 100 uS"),
    ({"cell": {"g_min": "1 mS"}}, "cell: g_min = 1 mS must be less than g_max = 100 uS"),
    ({"cell": {"g_min": "-1 uS"}}, "cell.g_min = -1 uS is outside 0 S to 10 mS (" + CELLS + ")"),
    (
        {"cell": {"g_max": "100 uV"}},
        "cell.g_max: '100 uV' is not in S; allowed units: S, fS, pS, nS, uS, mS, kS, MS, GS, TS",
    ),
    ({"cell": {"g_max": float("nan")}}, "cell.g_max = nan: input should be a finite number"),
    ({"cell": {"g_max": float("inf")}}, "cell.g_max = inf: input should be a finite number"),
    ({"cell": {"g_max": True}}, "cell.g_max = True: input should be a valid number"),
    (
        {"cell": {"read_voltage": 0}},
        "cell.read_voltage = 0 V is outside 1 mV to 5 V (less is noise, more writes the cell; assumed)",
    ),
    ({"cell": {"leak": "keep"}}, "cell.leak = 'keep'; did you mean 'kept'?; allowed: 'cancelled', 'kept'"),
    (
        {"cell": {"programming": {"kind": "lognormal", "sigma": -0.1}}},
        "cell.programming.sigma = -0.1 is outside 0 to 2 (" + SIGMA + ")",
    ),
    ({"cell": {"programming": {"kind": "lognormal", "sgma": 0.1}}}, "cell.programming.sigma is missing"),
    (
        {"cell": {"programming": {"kind": "log-normal", "sigma": 0.1}}},
        "cell.programming.kind = 'log-normal'; did you mean 'lognormal'?; allowed: 'ideal', 'lognormal', "
        "'gaussian_proportional', 'gaussian_absolute', 'per_level'",
    ),
    (
        {"cell": {"programming": {"sigma": 0.1}}},
        "cell.programming.kind is missing; allowed: 'ideal', 'lognormal', 'gaussian_proportional', "
        "'gaussian_absolute', "
        "'per_level'",
    ),
    (
        {"cell": {"programming": {"kind": "per_level", "sigma": [1e-6, 1e-6, 1e-6]}}},
        "cell: programming.sigma has 3 entries; a cell of 2 bits has 4 levels",
    ),
    (
        {"cell": {"programming": {"kind": "per_level", "sigma": [0, 0, 0, 0], "mean": [1e-6]}}},
        "cell: programming.mean has 1 entries; a cell of 2 bits has 4 levels",
    ),
    (
        {"cell": {"read_noise": {"kind": "proportional", "sigma": 11.0}}},
        "cell.read_noise.sigma = 11.0 is outside 0 to 2 (" + SIGMA + ")",
    ),
    ({"cell": {"faults": {"stuck_off": 1.5}}}, "cell.faults.stuck_off = 1.5 is outside 0 to 1 (a share of all cells)"),
    ({"cell": {"faults": {"stuck_off": "0.1"}}}, "cell.faults.stuck_off = '0.1': input should be a valid number"),
    (
        {"cell": {"faults": {"stuck_off": 0.7, "stuck_on": 0.5}}},
        "cell.faults: stuck_off + stuck_on = 1.2 exceeds 1: a cell sticks once",
    ),
    ({"adc": {"bits": 17}}, "adc.bits = 17: input should be less than or equal to 16"),
    (
        {"adc": {"policy": "fixd"}},
        "adc.policy = 'fixd'; did you mean 'fixed'?; allowed: 'lossless', 'full', 'calibrated', 'trained', "
        "'fixed', 'batch_minmax'",
    ),
    ({"adc": {"bits": 2, "levels": 5}}, "adc: levels = 5 exceeds 2**bits = 4"),
    ({"adc": {"bits": 2, "levels": 1}}, "adc.levels = 1: input should be greater than or equal to 2"),
    ({"adc": {"bits": 2, "levels": 3.0}}, "adc.levels = 3.0: input should be a valid integer"),
    (
        {"adc": {"policy": "fixed"}},
        'adc: policy = "fixed" with range absent: a range [A] belongs to policy = "fixed" and to no other',
    ),
    (
        {"adc": {"range": {"low": 0, "high": 1e-6}}},
        'adc: policy = "full" with range given: a range [A] belongs to policy = "fixed" and to no other',
    ),
    (
        {"adc": {"policy": "fixed", "range": {"low": "1 uA", "high": "1 uA"}}},
        "adc.range: low = 1 uA must be less than high = 1 uA",
    ),
    (
        {"adc": {"policy": "fixed", "range": {"low": 0, "high": "1 uA"}}, "weights": {"encoding": "pair"}},
        "adc.range.low = 0 A must be minus adc.range.high = 1 uA: pairs subtracted before conversion have signed sums",
    ),
    ({"adc": {"columns_per_adc": 17}}, "adc.columns_per_adc = 17 exceeds crossbar.cols = 16"),
    ({"adc": {"percentile": 50}}, "adc.percentile = 50: input should be greater than 50"),
    ({"dac": {"bits": 5}}, "dac.bits = 5 exceeds inputs.bits = 4"),
    ({"inputs": {"bits": 0}}, "inputs.bits = 0: input should be greater than or equal to 1"),
    ({"weights": {"bits": 1}}, "weights.bits = 1: input should be greater than or equal to 2"),
    (
        {"weights": {"slices": 1}},
        "weights.slices = 1 cells of 2 bits do not cover weights of 4 bits in offset encoding; at least 2",
    ),
    (
        {"weights": {"slices": 2, "encoding": "twos_complement"}},
        "weights.slices = 2 cells of 2 bits do not cover weights of 4 bits in twos_complement encoding; at least 3",
    ),
    (
        {"weights": {"encoding": "pairs"}},
        "weights.encoding.kind = 'pairs'; did you mean 'pair'?; allowed: 'offset', 'pair', 'twos_complement'",
    ),
    (
        {"weights": {"encoding": {"kind": "pair", "sum": "column"}}},
        "unknown key weights.encoding.sum; allowed here: kind, subtract",
    ),
    (
        {"weights": {"encoding": {"kind": "offset", "zero_point": 16}}},
        "weights.encoding.zero_point = 16 must be less than 2**weights.bits = 16",
    ),
    ({"timing": {"sample_and_hold": "yes"}}, "timing.sample_and_hold = 'yes': input should be a valid boolean"),
    ({"node": "32 V"}, "node: '32 V' is not in m; allowed units: m, fm, pm, nm, um, mm, km, Mm, Gm, Tm"),
    ({"name": ""}, "name = '': string should have at least 1 character"),
    ({"adcs": 1}, "unknown key adcs; did you mean 'adc'?; allowed here: " + ", ".join(Chip.model_fields)),
    ({"system": {"tiles": 0}}, "system.tiles = 0: input should be greater than or equal to 1"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=lambda x: None if isinstance(x, dict) else x[:50])
def test_an_impossible_value_is_refused_with_the_value_and_the_rule(make_chip, change, message):
    with pytest.raises(ChipError) as error:
        make_chip(**change)
    assert f"chip: {message}" in str(error.value).splitlines()


def test_an_impossible_number_of_rows_is_the_one_thing_complained_of(make_chip):
    with pytest.raises(ChipError) as error:
        make_chip(crossbar={"rows": -1})
    assert str(error.value) == "chip: crossbar.rows = -1: input should be greater than or equal to 1"


def test_every_problem_has_a_line_of_its_own(make_chip):
    with pytest.raises(ChipError) as error:
        make_chip(crossbar={"cols": 0}, adc={"bits": 0}, vdd="1 A")
    assert len(str(error.value).splitlines()) == 3


def test_a_key_that_is_missing_is_named():
    with pytest.raises(ChipError, match=r"^chip: node is missing$"):
        check(
            {
                "name": "x",
                "vdd": 1.0,
                "cell": load("example-128").cell,
                "crossbar": {"rows": 8, "cols": 16},
                "adc": {"bits": 3},
            }
        )


def test_a_chip_is_frozen_all_the_way_down():
    chip = load("example-128")
    for record, field in ((chip, "name"), (chip.cell, "bits"), (chip.cell.programming, "sigma"), (chip.adc, "bits")):
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(record, field, getattr(record, field))


def test_a_chip_is_a_key_of_a_dictionary_and_equal_chips_are_one_key():
    assert {load("example-128"): 1}[load("example-128")] == 1
    assert load("example-128") != replace(load("example-128"), "adc.bits=7")
    assert load("example-128") != replace(load("example-128"), "adc.levels=63")


@pytest.mark.parametrize("name", presets())
def test_a_chip_survives_being_written_and_read(name):
    chip = load(name)
    assert Chip.model_validate_json(chip.model_dump_json()) == chip
    assert check(chip.model_dump(mode="json", exclude_none=True)) == chip
    assert replace(chip) == chip


@pytest.mark.parametrize(("converter", "codes"), [({"bits": 3}, 8), ({"bits": 2, "levels": 3}, 3), ({"bits": 1}, 2)])
def test_an_adc_has_as_many_codes_as_levels_or_else_as_its_bits_give(make_chip, converter, codes):
    chip = make_chip(adc=converter)
    assert chip.adc.codes == codes
    assert check(chip.model_dump(mode="json")) == chip


def test_all_rows_are_active_unless_said(make_chip):
    assert make_chip().crossbar.active_rows == 8
    assert make_chip(crossbar={"active_rows": 3}).crossbar.row_tiles == 2


@pytest.mark.parametrize(
    ("encoding", "weight_bits", "cell_bits", "slices", "columns"),
    [
        ("offset", 8, 2, 4, 32),
        ("offset", 7, 3, 3, 42),
        ("offset", 16, 8, 2, 64),
        ("offset", 2, 8, 1, 128),
        ("pair", 8, 2, 4, 16),
        ("pair", 8, 7, 1, 64),
        ("pair", 8, 3, 3, 21),
        ("pair", 2, 1, 1, 64),
        ("twos_complement", 8, 2, 5, 25),
        ("twos_complement", 2, 1, 2, 64),
        ("twos_complement", 8, 7, 2, 64),
    ],
)
def test_the_fewest_cells_that_hold_a_weight_are_taken(make_chip, encoding, weight_bits, cell_bits, slices, columns):
    chip = make_chip(
        crossbar={"rows": 8, "cols": 128}, cell={"bits": cell_bits}, weights={"bits": weight_bits, "encoding": encoding}
    )
    assert (chip.slices, chip.weight_columns) == (slices, columns)


def test_a_reference_column_takes_the_place_of_a_weight_column(make_chip):
    plain = make_chip(weights={"encoding": {"kind": "offset", "sum": "digital"}})
    assert (
        make_chip(weights={"encoding": {"kind": "offset", "sum": "column"}}).weight_columns == plain.weight_columns - 1
    )


def test_variants_differ_from_their_chip_in_what_they_say_only():
    chip = load("example-128")
    exact = ideal(chip)
    assert exact.adc.policy == "lossless"
    assert isinstance(exact.cell.programming, Ideal)
    assert with_cells(chip, programming=True, faults=True, read_noise=True) == chip
    assert with_cells(chip, programming=True).cell.faults.stuck_on == 0
    assert lossless(chip).cell == chip.cell
    for variant in (exact, lossless(chip), with_cells(chip)):
        assert same_sums(variant, chip)
        assert Chip.model_validate(variant.model_dump()) == variant
    assert not same_sums(chip, replace(chip, "crossbar.rows=64"))


def test_kinds_are_records_of_their_own():
    chip = load("example-128", ["weights.encoding=pair", "cell.programming=ideal"])
    assert isinstance(chip.weights.encoding, Pair)
    assert isinstance(chip.cell.programming, Ideal)
    assert isinstance(load("rram-22nm").weights.encoding, Offset)
    assert isinstance(load("rram-22nm").cell.programming, LogNormal)


def test_rounding_and_few_bits_of_a_bias_need_powers_of_two(make_chip):
    with pytest.raises(ChipError, match='rounding = "nearest" needs scale = "power_of_two"; it is "any"'):
        make_chip(inputs={"rounding": "nearest"})
    with pytest.raises(ChipError, match=r'bias_bits = 8 needs inputs\.scale = "power_of_two"; it is "any"'):
        make_chip(weights={"bias_bits": 8, "scale": "power_of_two"})
    powers = {"scale": "power_of_two", "rounding": "nearest"}
    assert make_chip(weights={"bias_bits": 8, **powers}, inputs=powers).weights.bias_bits == 8


def test_keys_that_came_later_leave_the_text_of_older_chips_as_it_was(make_chip):
    assert repr(make_chip().inputs) == "Inputs(bits=4, calibration='mse', percentile=99.99, scale='any')"
    assert "rounding='nearest'" in repr(make_chip(inputs={"scale": "power_of_two", "rounding": "nearest"}).inputs)
