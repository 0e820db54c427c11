"""Random edits of chips over all of their keys: refused in a line or priced and evaluated with finite numbers."""

import math
from typing import Any

import pytest
import torch
from fuzz_cases import numbers
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from torch import nn

from bitline.chip import load, presets
from bitline.chip.description import Chip, check
from bitline.chip.plausible import Plausible, kinds_of, plausible, records_of
from bitline.cost.model import price
from bitline.errors import BitlineError
from bitline.models import build
from bitline.nn import calibrate, placement, program, to_crossbar

TEXTS = {"name", "about", "doi", "deviations"}
UNRELATED = {"cost_table": ["isaac-32nm", "neurosim-22nm"]}


def within(limits: Plausible, whole: bool) -> st.SearchStrategy[Any]:
    """Values of a range, its ends and what is usual more often."""
    low, high = limits.usual or (limits.low, limits.high)
    ends = [limits.low, limits.high, low, high]
    if whole:
        small = st.integers(int(limits.low), int(min(limits.high, 64)))
        return small | st.integers(int(limits.low), int(limits.high)) | st.sampled_from([int(end) for end in ends])
    spread = st.floats(low, high) | st.floats(limits.low, limits.high)
    if limits.low >= 0:
        tiny = max(limits.low, limits.high * 1e-9)
        spread |= st.floats(math.log(tiny), math.log(limits.high)).map(lambda x: min(math.exp(x), limits.high))
    return spread | st.sampled_from([float(end) for end in ends])


def value(key: str, field: FieldInfo) -> st.SearchStrategy[Any]:
    """Values of one key, within its range or among its words."""
    limits, kind = plausible(field), str(field.annotation)
    if limits is not None and "tuple" in kind:
        return st.lists(within(limits, whole=False), min_size=2, max_size=4).map(tuple)
    if limits is not None:
        return within(limits, whole="int" in kind)
    below = records_of(field.annotation)
    if below:
        return st.one_of([record(each) for each in below])
    if "Literal" in kind:
        return st.sampled_from(words_of(field.annotation))
    if "bool" in kind:
        return st.booleans()
    if "int" in kind:
        return st.integers(1, 16)
    return st.floats(50.1, 100)  # percentiles


def words_of(annotation: object) -> list[str]:
    """Words that a Literal allows, within whatever it stands in."""
    parts = getattr(annotation, "__args__", ())
    return [word for part in parts for word in ([part] if isinstance(part, str) else words_of(part))]


def record(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Some keys of a record, all that it needs among them."""
    fields = {key: field for key, field in model.model_fields.items() if key != "kind"}
    kinds = {"kind": st.sampled_from(kinds_of(model))} if kinds_of(model) else {}
    need = {key: value(key, field) for key, field in fields.items() if field.is_required()}
    may = {key: value(key, field) for key, field in fields.items() if not field.is_required()}
    return st.fixed_dictionaries({**kinds, **need}, optional=may)


def edits() -> st.SearchStrategy[dict[str, Any]]:
    """Some keys of a chip, each changed alone or with its whole record."""
    changes: list[st.SearchStrategy[dict[str, Any]]] = []
    for key, field in Chip.model_fields.items():
        if key in TEXTS:
            continue
        if key in UNRELATED:
            changes.append(st.fixed_dictionaries({key: st.sampled_from(UNRELATED[key])}))
        elif records_of(field.annotation):
            (model,) = records_of(field.annotation)
            for below, each in model.model_fields.items():
                one = value(below, each)
                changes.append(one.map(lambda v, key=key, below=below: {key: {below: v}}))
        else:
            changes.append(st.fixed_dictionaries({key: value(key, field)}))
    return st.lists(st.one_of(changes), min_size=1, max_size=6).map(merged)


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for part in parts:
        for key, each in part.items():
            whole[key] = {**whole.get(key, {}), **each} if isinstance(each, dict) else each
    return whole


def edited(preset: str, edit: dict[str, Any]) -> Chip | None:
    """The chip, or None where it is refused with some short lines."""
    data = load(preset).model_dump(mode="json", exclude_none=True)
    if edit.get("crossbar", {}).keys() & {"rows", "cols"}:
        del data["crossbar"]["active_rows"]
    try:
        return check(merged([data, edit]))
    except BitlineError as error:
        assert_short(error)
        return None


def assert_short(error: BitlineError) -> None:
    lines = str(error).splitlines()
    assert 1 <= len(lines) <= 21
    assert all(0 < len(line) < 700 for line in lines)


_patient = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
NETWORK = build("lenet5", in_channels=1, image_size=8, width=0.25)
EXAMPLE = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@_patient
@given(st.sampled_from(presets()), edits())
def test_a_chip_is_refused_or_priced_with_finite_numbers(preset: str, edit: dict[str, Any]):
    chip = edited(preset, edit)
    assume(chip is not None)
    try:
        converted = to_crossbar(NETWORK, chip, example=EXAMPLE).model
        cost = price(placement(converted)).to_json()
    except BitlineError as error:
        assert_short(error)
        return
    assert all(math.isfinite(number) and number >= 0 for number in numbers(cost))
    assert 0 < cost["energy_J"] < 1e6
    assert 0 < cost["latency_s"] < 1e5
    assert 0 < cost["area_m2"] < 1e3


@settings(_patient, max_examples=40)
@given(st.sampled_from(presets()), edits())
def test_a_chip_is_refused_or_answers_finite_numbers(preset: str, edit: dict[str, Any]):
    chip = edited(preset, edit)
    assume(chip is not None)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 9, 3))
    images = EXAMPLE[:, :, :5, :5]
    try:
        converted = to_crossbar(model, chip, example=images).model
        calibrate(converted, [images])
        program(converted, 0)
        answer = converted(images)
    except BitlineError as error:
        assert_short(error)
        return
    assert answer.shape == (2, 3)
    assert torch.isfinite(answer).all()


@pytest.mark.slow
@settings(_patient, max_examples=1500)
@given(st.sampled_from(presets()), edits())
def test_more_chips_are_refused_or_priced(preset: str, edit: dict[str, Any]):
    test_a_chip_is_refused_or_priced_with_finite_numbers.hypothesis.inner_test(preset, edit)
