"""Differences between two records are named with both values."""

from pathlib import Path

from bitline.differences import differences


def told(*records: object, free: tuple[str, ...] = ()) -> list[str]:
    return [str(difference) for difference in differences(*records, free=free)]


def test_each_difference_has_its_dotted_key_and_both_values():
    asked = {"lr": 0.1, "adc": {"bits": 5, "levels": None}, "rows": (64, 128), "name": "a"}
    was = {"lr": 0.1, "adc": {"bits": 4, "levels": None}, "rows": [64], "name": "b"}
    assert told(asked, was) == ["adc.bits 5 (was 4)", "rows [64, 128] (was [64])", "name 'a' (was 'b')"]


def test_a_key_that_one_record_lacks_differs_from_a_value():
    assert told({"a": {"b": 1}}, {"c": "d"}) == ["a.b 1 (was None)", "c None (was 'd')"]
    assert told({"a": None}, {}) == []


def test_what_comes_back_from_a_file_is_the_same():
    assert told({"path": Path("a/b"), "list": (1, (2,))}, {"path": "a/b", "list": [1, [2]]}) == []


def test_free_keys_may_differ_with_all_below_them_and_no_others():
    asked, was = {"adc": {"range": {"low": 0}, "ranges": 1}}, {"adc": {"range": {"low": 1}, "ranges": 2}}
    assert told(asked, was, free=("adc.range",)) == ["adc.ranges 1 (was 2)"]
    assert told(asked, was, free=("adc",)) == []
