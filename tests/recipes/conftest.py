"""Networks that the tests of recipes begin with, and what recipes made of them: trained once for all processes."""

from pathlib import Path

import pytest

from bitline.recipes import checked
from bitline.recipes.run import optimize
from bitline.train import checked as checked_training
from bitline.train.run import train


@pytest.fixture(scope="session")
def network(once) -> Path:
    """A small VGG-8 that has learned the digits."""
    settings = {"model": "vgg8", "data": "digits", "width": 0.125, "epochs": 6, "batch_size": 64, "threads": 1}
    return once("vgg8", lambda folder: train(checked_training(**settings, precision="32-true", out=folder)))


@pytest.fixture(scope="session")
def made(once, network):
    """What a recipe made of it, once for each name."""
    return lambda name, **settings: once(name, lambda folder: optimize(checked(run=network, **settings, out=folder)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the result of a whole recipe waits for it."""
    for item in items:
        if "made" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
