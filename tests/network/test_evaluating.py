"""A network answers in evaluation mode for a while, and is left as it was."""

import pytest
from torch import nn

from bitline.network.copy import evaluating


def network() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).train()
    model[1].eval()
    return model


def test_every_module_evaluates_and_then_has_the_mode_that_it_had():
    model = network()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_an_error_leaves_no_module_in_another_mode():
    model = network()

    def fail() -> None:
        with evaluating(model):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in model.modules()] == [True, True, False, True]
