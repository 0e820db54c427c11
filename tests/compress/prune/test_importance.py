"""What the loss would gain without kernels or crossbars, against taking them out one by one."""

import copy

import pytest
import torch
from pruning_samples import NETWORKS, images, network
from torch import nn
from torch.nn import functional as F

from bitline.compress.prune.crossbar_block import CrossbarBlocks
from bitline.compress.prune.importance import taylor_terms
from bitline.compress.prune.kernel_group import KernelGroups, _zero
from bitline.compress.prune.shrink import Removal


def batches(name: str = "vgg8", count: int = 3, size: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    shape, rng = images(name).shape[1:], torch.Generator().manual_seed(5)
    return [(torch.randn(size, *shape, generator=rng), torch.randint(5, (size,), generator=rng)) for _ in range(count)]


@torch.no_grad()
def loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    return float(F.cross_entropy(model.eval()(x), y))


def test_a_change_is_that_of_the_loss_for_a_small_step():
    model = network("vgg8").double().train()
    parameters = [p for p in model.parameters() if p.dim() == 1]
    data = [(x.double(), y) for x, y in batches()]
    found = list(taylor_terms(model, data, parameters))

    assert model.training
    assert all(p.grad is None for p in model.parameters())
    for (x, y), each in zip(data, found, strict=True):
        before = loss(model, x, y)
        for p, change in list(zip(parameters, each, strict=True))[:4]:
            with torch.no_grad():
                p.mul_(1 - 1e-6)
            assert loss(model, x, y) - before == pytest.approx(-1e-6 * float(change.sum()), rel=1e-3, abs=1e-13)
            with torch.no_grad():
                p.div_(1 - 1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_rank_by_the_loss_that_parting_with_a_little_of_them_makes(name, make_chip):
    model = network(name).double()
    groups = KernelGroups(model, images(name).double(), make_chip())
    data = [(x.double(), y) for x, y in batches(name)]
    groups.measure_importance(data)

    step = 1e-6
    for each in groups.sets:
        found = groups._score(each.kernels)
        for channel in {0, each.kernels.channels - 1}:
            expected = 0.0
            less = copy.deepcopy(model)
            gone = torch.arange(each.kernels.channels) == channel
            with torch.no_grad():
                _zero(less, Removal(each.kernels, gone))
                for p, q in zip(less.parameters(), model.parameters(), strict=True):
                    p.mul_(step).add_(q * (1 - step))
            for x, y in data:
                expected += ((loss(less, x, y) - loss(model, x, y)) / step) ** 2
            saved = groups._saved(each)
            assert saved > 0
            assert float(found[channel]) * saved == pytest.approx(expected, rel=1e-2, abs=1e-9)


def test_a_kernel_that_nothing_listens_to_goes_first_whatever_its_factor(make_chip):
    model = network("vgg8")
    groups = KernelGroups(model, images("vgg8"), make_chip())
    deaf = groups.sets[0].kernels
    (reader, places), *_ = deaf.readers.items()
    (norm, features), *_ = deaf.norms.items()
    mute = torch.arange(deaf.channels) % 2 == 0
    with torch.no_grad():
        model.get_submodule(reader).weight[:, places[mute].flatten()] = 0
        model.get_submodule(norm).weight[features[mute].flatten()] = 9

    groups.measure_importance(batches())

    score = groups._score(deaf)
    assert float(score[mute].max()) == 0
    assert float(score[~mute].min()) > 0


def test_crossbars_rank_by_the_loss_and_a_useless_one_goes_first(make_chip):
    model = network("vgg8")
    blocks = CrossbarBlocks(model, images("vgg8"), make_chip())
    name, mask = list(blocks.masks.items())[-1]
    with torch.no_grad():
        model.get_submodule(name).parametrizations.weight.original[:, : mask.height] = 0
        mask.factors[0, 0] = 7
    blocks.measure_importance(batches())

    total = sum(mask.factors.numel() for mask in blocks.masks.values())
    blocks.zero(mask.factors.shape[2] / total)

    assert int((mask.factors == 0).sum()) == int((mask.factors[0, 0] == 0).sum()) == mask.factors.shape[2]
    assert sum(int((each.factors == 0).sum()) for each in blocks.masks.values()) == mask.factors.shape[2]


def test_weighing_works_where_lightning_tests(make_chip):
    model = network("vgg8")
    blocks = CrossbarBlocks(model, images("vgg8"), make_chip())
    with torch.inference_mode():
        data = list(batches())
    blocks.measure_importance([(x.clone(), y.clone()) for x, y in data])
    expected = {name: value.clone() for name, value in blocks._importance.items()}
    with torch.inference_mode():
        blocks.measure_importance(data)
    for name, value in expected.items():
        torch.testing.assert_close(blocks._importance[name], value)
