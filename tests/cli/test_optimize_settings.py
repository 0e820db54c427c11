"""Settings of a recipe in a file, and what wins over them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitline.cli import app
from bitline.errors import DataError

PUBLISHED = Path(__file__).parents[2] / "experiments" / "crimp_published.toml"


class ToldError(Exception):
    """Ends a command once it has its configuration."""


@pytest.fixture
def told(monkeypatch):
    """Run the command as far as its configuration."""
    found = []

    def optimize(config, **_):
        found.append(config)
        raise ToldError

    monkeypatch.setattr("bitline.recipes.run.optimize", optimize)

    def run(*arguments):
        result = CliRunner().invoke(app, ["optimize", "crimp", "runs/any", *map(str, arguments)])
        if not isinstance(result.exception, ToldError):
            raise result.exception or AssertionError(result.output)
        return found[-1]

    return run


def test_a_file_says_what_the_command_line_does_not(told):
    config = told("--settings", PUBLISHED, "--sparsity", 0.8, "--l1", 1e-3)

    assert (config.epochs, config.batch_size, config.schedule, config.momentum) == (160, 64, "steps", 0.9)
    assert (config.weight_decay, config.zero_start, config.rank, config.distill) == (1e-4, 0.5, "factor", 0.0)
    assert (config.sparsity, config.l1) == (0.8, 1e-3)


def test_what_the_command_line_says_wins_even_if_it_is_the_default(told):
    assert told("--settings", PUBLISHED, "--distill", 0.7, "--lr", 0.02).distill == 0.7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", "unknown key 'epoch'; allowed: .*did you mean 'epochs'"),
        ("momentum = 1.0", "momentum is 1.0: Input should be less than 1"),
        ("schedule = 'step'", "schedule is 'step': Input should be 'linear', 'cosine', 'onecycle' or 'steps'"),
        ("epochs = ", "cannot read --settings"),
    ],
)
def test_a_file_that_says_something_else_is_refused(told, tmp_path, text, said):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(DataError, match=said):
        told("--settings", file)
