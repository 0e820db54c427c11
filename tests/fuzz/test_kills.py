"""A sample of the kills of `kills.py`: one of each command."""

import shutil
from pathlib import Path

import kills
import pytest


@pytest.fixture(scope="session")
def shared(once) -> Path:
    """A folder with the network that commands begin with."""
    return once("kills", kills.base)


@pytest.mark.slow
@pytest.mark.parametrize("name", kills.COMMANDS)
def test_a_command_that_is_killed_and_resumed_ends_as_undisturbed(shared, tmp_path, name):
    shutil.copytree(shared / "base", tmp_path / "base")
    (tmp_path / name).mkdir()
    whole = kills.undisturbed(name, tmp_path)

    done = kills.kill(name, list(kills.COMMANDS).index(name), whole, tmp_path)

    assert not done.wrong
    assert done.statuses[-1] == 0
