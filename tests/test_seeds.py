"""Seeds stay what they were, and differ where what is drawn differs."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline import seeds


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
