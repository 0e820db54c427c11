import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline import units

UNITS = ("S", "V", "s", "m", "Hz", "A", "ohm", "J", "m2")
FINITE = st.floats(1e-18, 1e15) | st.floats(-1e15, -1e-18)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("10 uS", "S", 1e-5),
        ("100 ns", "s", 1e-7),
        ("32nm", "m", 3.2e-8),
        (" 0.5 V ", "V", 0.5),
        ("-3 mA", "A", -3e-3),
        ("1.28 GHz", "Hz", 1.28e9),
        ("1200 um2", "m2", 1.2e-9),
        ("2 mm2", "m2", 2e-6),
        ("10 Mohm", "ohm", 1e7),
        (".5e3 fS", "S", 5e-13),
        ("7 m", "m", 7.0),
    ],
)
def test_a_quantity_is_read_to_the_last_bit(text, unit, value):
    assert units.parse(text, unit) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10", "'10' is not in S; allowed units: S, fS, pS, nS, uS, mS, kS, MS, GS, TS"),
        ("10 uV", "'10 uV' is not in S; allowed units: S, fS, pS, nS, uS, mS, kS, MS, GS, TS"),
        ("10 xS", "'10 xS' is not in S; allowed units: S, fS, pS, nS, uS, mS, kS, MS, GS, TS"),
        ("10 us", "'10 us' is not in S; allowed units: S, fS, pS, nS, uS, mS, kS, MS, GS, TS"),
        ("ten uS", "'ten uS' is not a number with a unit; expected for example '10 S'"),
        ("1 2 S", "'1 2 S' is not a number with a unit; expected for example '10 S'"),
        ("", "'' is not a number with a unit; expected for example '10 S'"),
        ("nan S", "'nan S' is not a number with a unit; expected for example '10 S'"),
    ],
)
def test_a_quantity_in_another_unit_is_refused_with_the_text_and_what_is_allowed(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        units.parse(text, "S")


@given(FINITE, st.sampled_from(UNITS))
def test_a_pretty_number_reads_back_to_four_digits(value, unit):
    assert units.parse(units.pretty(value, unit), unit) == pytest.approx(value, rel=5.1e-4)


@given(st.floats(1e-15, 9.99e14), st.sampled_from(("S", "J", "Hz")))
def test_a_pretty_number_has_one_to_three_digits_before_its_point(value, unit):
    number, _, written = units.pretty(value, unit).partition(" ")
    assert 1 <= float(number) < 1000
    assert written.removesuffix(unit) in units.PREFIXES


@given(st.integers(-999, 999), st.sampled_from([p for p in units.PREFIXES if p]))
def test_scaling_by_a_prefix_equals_the_decimal_exponent_written_out(number, prefix):
    exponent = round(math.log10(units.PREFIXES[prefix]))
    assert units.parse(f"{number} {prefix}S", "S") == float(f"{number}e{exponent}")


def test_multipliers_are_those_of_the_prefixes():
    names = {
        "fJ": "J",
        "uS": "S",
        "ns": "s",
        "kohm": "ohm",
        "GHz": "Hz",
        "um2": "m2",
        "mm2": "m2",
        "fF": "F",
        "nW": "W",
    }
    for name, unit in names.items():
        assert units.parse(f"1 {name}", unit) == getattr(units, name)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 S"), (999.96e-6, "1 mS"), (-1e-5, "-10 uS"), (float("inf"), "inf S"), (1e-18, "1e-18 S")],
)
def test_edges_of_pretty_numbers(value, text):
    assert units.pretty(value, "S") == text
