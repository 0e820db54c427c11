"""Seeds stay what they were, and differ where what is drawn differs."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bitline import seeds
from bitline.errors import DataError
from bitline.nn import on, program, to_crossbar


def test_a_seed_depends_on_every_part_and_on_their_borders():
    parts = [(0, "a", "b"), (1, "a", "b"), (0, "ab"), (0, "a", "c"), ("0", "a", "b", ""), ("0a", "b")]
    assert len({seeds.derive(*p) for p in parts}) == len(parts)
    assert all(0 <= seeds.derive(*p) < 2**63 for p in parts)
    assert torch.equal(
        torch.rand(3, generator=seeds.generator(1, "x")), torch.rand(3, generator=seeds.generator(1, "x"))
    )


def test_chips_and_trainings_that_exist_draw_what_they_drew():
    assert seeds.derive(0, "conv2", "programming") == 2175580904999792198
    assert seeds.of_step(3, -1, 17) == 8247169389528273689
    assert seeds.of_call(2, 3, 4) == 201809085
    keys = seeds.read_keys(2**62 + 5, torch.tensor(12345), torch.tensor(63), 3)
    assert [int(key) for key in keys] == [15843, 14679, 48614, 55489]


def test_seeds_of_steps_differ_for_neighbours_and_orders():
    steps = {seeds.of_step(seed, epoch, batch) for seed in range(20) for epoch in range(20) for batch in range(20)}
    assert len(steps) == 8000
    assert all(0 <= step < 2**63 for step in steps)
    assert seeds.of_step(1, 2) != seeds.of_step(2, 1)


@given(seed=st.integers(0, 2**63 - 1), image=st.integers(0, 2**40), position=st.integers(0, 2**20))
def test_keys_of_reads_are_the_mixer_of_steps_on_64_bits(seed, image, position):
    mask = 2**64 - 1

    def mix(x: int) -> int:
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
        return x ^ x >> 31

    h = mix(mix((image * 0x9E3779B97F4A7C15 + position) & mask) ^ seed)
    h = mix((h + 7 * 0xD1B54A32D192ED03) & mask)
    keys = seeds.read_keys(seed, torch.tensor(image), torch.tensor(position), 7)
    assert [int(key) for key in keys] == [h >> shift & 0xFFFF for shift in (0, 16, 32, 48)]


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (1.5, "seed is 1.5, a float; allowed: whole numbers from 0 to 2**63 - 1"),
        (1.0, "seed is 1.0, a float; allowed: whole numbers"),
        (True, "seed is True, a bool; allowed: whole numbers"),
        (None, "seed is None, a NoneType; allowed: whole numbers"),
        ("0", "seed is '0', a str; allowed: whole numbers"),
        (-1, "seed is -1; allowed: 0 to 2**63 - 1"),
        (2**63, "seed is 9223372036854775808; allowed: 0 to 2**63 - 1"),
        (10**4000, "seed is a number of about 4000 digits; allowed: 0 to 2**63 - 1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_seed_is_refused_by_its_value_and_type(seed, message):
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        seeds.check(seed)


def test_seeds_are_whole_numbers_of_63_bits_however_they_are_held():
    assert [seeds.check(seed) for seed in (0, 2**63 - 1, np.int64(3))] == [0, 2**63 - 1, 3]
    assert seeds.check(-1, least=-1) == -1
    assert seeds.check(2**63 - 10, count=10) == 2**63 - 10
    with pytest.raises(DataError, match=r"allowed: 0 to 2\*\*63 - 1 less the 9 that follow it"):
        seeds.check(2**63 - 9, count=10)


@pytest.mark.parametrize("seed", [1.5, True, None, "0", -2, 2**63, 2**64])
def test_a_network_is_programmed_with_seeds_alone(make_chip, seed):
    model, _ = to_crossbar(nn.Sequential(nn.Linear(4, 3)), make_chip(), example=torch.ones(1, 4))
    program(model, 2**63 - 1)
    with pytest.raises(DataError, match="seed is "):
        program(model, seed)
    with pytest.raises(DataError, match="seed is "), on(model, seed=seed):
        pass
    assert int(model[0].chip_seed) == 2**63 - 1
