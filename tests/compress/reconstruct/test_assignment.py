import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline.compress.reconstruct.assignment import KINDS, assign, check_kind
from bitline.errors import ConversionError


def share(importance: torch.Tensor, inputs: torch.Tensor, outputs: torch.Tensor, groups: int) -> float:
    rows, cols = len(outputs) // groups, len(inputs) // groups
    ordered = importance[outputs][:, inputs]
    inside = sum(
        float(ordered[g * rows : (g + 1) * rows, g * cols : (g + 1) * cols].sum().double()) for g in range(groups)
    )
    return inside / float(importance.double().sum())


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000), st.sampled_from(KINDS))
def test_every_assignment_deals_each_channel_once_and_says_what_it_keeps(groups, ins, outs, seed, kind):
    importance = torch.rand(groups * outs, groups * ins, generator=torch.Generator().manual_seed(seed)) + 0.01

    found = assign(importance, groups, kind)

    assert sorted(found.inputs.tolist()) == list(range(groups * ins))
    assert sorted(found.outputs.tolist()) == list(range(groups * outs))
    assert found.kept == pytest.approx(share(importance, found.inputs, found.outputs, groups), rel=1e-5)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_the_best_assignment_keeps_at_least_as_much_as_the_others(groups, ins, outs, seed):
    importance = torch.rand(groups * outs, groups * ins, generator=torch.Generator().manual_seed(seed)) ** 3
    kept = {kind: assign(importance, groups, kind).kept for kind in KINDS}

    assert kept["best"] >= max(kept.values()) * (1 - 1e-9)


@pytest.mark.parametrize(("groups", "ins", "outs"), [(3, 12, 6), (8, 64, 64), (16, 64, 128)])
def test_groups_hidden_by_a_shuffle_are_found(rng, groups, ins, outs):
    importance = torch.block_diag(
        *(torch.rand(outs // groups, ins // groups, generator=rng) + 0.1 for _ in range(groups))
    )
    hidden = importance[torch.randperm(outs, generator=rng)][:, torch.randperm(ins, generator=rng)]

    assert assign(hidden, groups, "diagonal").kept < 0.9
    assert assign(hidden, groups, "best").kept == pytest.approx(1)


def test_many_channels_dealt_in_parts_keep_at_least_as_much_as_the_diagonal(rng, monkeypatch):
    monkeypatch.setattr("bitline.compress.reconstruct.assignment.AT_ONCE", 8)
    monkeypatch.setattr("bitline.compress.reconstruct.assignment.MANY", 32)
    importance = torch.rand(24, 48, generator=rng) ** 4

    assert assign(importance, 4, "best").kept > 1.3 * assign(importance, 4, "diagonal").kept


def test_the_groups_of_the_shuffle_are_those_of_shufflenet():
    found = assign(torch.ones(4, 8), 2, "shuffle")
    shuffled = torch.nn.functional.channel_shuffle(torch.arange(8.0).view(1, 8, 1, 1), 2).flatten()

    for group in (slice(0, 4), slice(4, 8)):
        assert set(found.inputs[group].tolist()) == set(shuffled[group].int().tolist())
    assert found.outputs.tolist() == [0, 1, 2, 3]


def test_one_seed_gives_one_assignment(rng):
    importance = torch.rand(32, 32, generator=rng)
    one, again = (assign(importance, 8, "best", seed=4) for _ in range(2))

    assert torch.equal(one.inputs, again.inputs)
    assert torch.equal(one.outputs, again.outputs)


def test_weights_that_are_all_zero_are_dealt_without_a_warning():
    assert assign(torch.zeros(4, 4), 2, "best").kept == 0


def test_an_unknown_assignment_is_refused_with_those_allowed():
    with pytest.raises(ConversionError, match=r"'bets'; allowed: best, diagonal, shuffle; did you mean 'best'\?"):
        check_kind("bets")
