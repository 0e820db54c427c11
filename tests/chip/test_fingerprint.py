"""What a record is known by depends on its content alone."""

import json
from collections.abc import Iterator

import pytest
from pydantic import Field

from bitline.chip import load
from bitline.chip.description import Chip, check
from bitline.chip.formats import Offset
from bitline.chip.records import Record, fingerprint


@pytest.mark.parametrize(
    ("preset", "expected"), [("rram-22nm", "1-1f27975fed237c66"), ("crimp-32nm", "1-0c3dabec1827549d")]
)
def test_presets_have_the_fingerprints_that_they_had(preset, expected):
    assert load(preset).fingerprint() == expected


class Point(Record):
    x: float
    y: int = 0
    label: str | None = None


class Turned(Record):
    """The same keys in another order, with other defaults; it prints otherwise."""

    label: str | None = Field(default="none", repr=False)
    y: int = 7
    x: float = 2.0

    def __repr__(self) -> str:
        return "a point"


class Longer(Point):
    newer = frozenset({"z"})
    z: float = 1.0


def test_the_order_of_keys_and_how_a_record_prints_have_no_influence():
    assert Point(x=1.5).fingerprint() == Turned(x=1.5, y=0, label=None).fingerprint()
    chip = load("rram-22nm")
    assert (
        check(json.loads(json.dumps(chip.model_dump(mode="json"), sort_keys=True))).fingerprint() == chip.fingerprint()
    )


def test_a_key_that_came_later_counts_once_it_says_something():
    assert Longer(x=1.5).fingerprint() == Point(x=1.5).fingerprint()
    assert Longer(x=1.5, z=2.0).fingerprint() != Point(x=1.5).fingerprint()


def test_equal_numbers_are_one_however_they_are_written():
    written = [Point(x=1, y=2), Point(x=1.0, y=2), Point(x=0.5).model_copy(update={"x": 1, "y": 2})]
    assert len({each.fingerprint() for each in written}) == 1
    assert Point(x=0.0).fingerprint() == Point(x=-0.0).fingerprint()
    units = [check({**load("rram-22nm").model_dump(mode="json"), "vdd": vdd}) for vdd in ("900 mV", "0.9 V", 0.9)]
    assert len({chip.fingerprint() for chip in units}) == 1


def changed(record: Record) -> Iterator[tuple[str, Record]]:
    """The record with one value replaced, once for each key, however deep; nothing is checked."""
    for key in type(record).model_fields:
        value = getattr(record, key)
        if isinstance(value, Record):
            for below, each in changed(value):
                yield f"{key}.{below}", record.model_copy(update={key: each})
        else:
            yield key, record.model_copy(update={key: "something else"})


@pytest.mark.parametrize("preset", ["rram-22nm", "crimp-32nm"])
def test_every_key_changes_it_and_each_in_its_own_way(preset):
    chip = load(preset)
    prints = {key: each.fingerprint() for key, each in changed(chip)}
    assert {"name", "adc.bits", "cell.programming.kind", "mitigation.remap", "weights.rounding"} <= prints.keys()
    assert len({*prints.values(), chip.fingerprint()}) == len(prints) + 1


def test_parts_are_known_by_their_borders_and_their_order():
    chip = load("rram-22nm")
    parts = [(chip.adc, chip.dac), (chip.dac, chip.adc), (chip.adc,), ({"adc": chip.adc},), ("a", "b"), ("ab",), ()]
    assert len({fingerprint(*part) for part in parts}) == len(parts)
    assert fingerprint(chip.adc) == chip.adc.fingerprint()
    assert fingerprint(True) != fingerprint(1)


def test_the_correction_of_an_offset_counts_though_it_does_not_print():
    assert Offset(correction="measured").fingerprint() != Offset().fingerprint()


def test_what_has_no_content_to_tell_is_refused():
    with pytest.raises(TypeError, match=r"a set has no fingerprint; allowed: records"):
        fingerprint({1, 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint(float("nan"))


def test_a_chip_that_went_through_a_file_is_the_same_chip():
    chip = load("crimp-32nm")
    assert Chip.model_validate_json(chip.model_dump_json()).fingerprint() == chip.fingerprint()
