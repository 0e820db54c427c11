"""What a run directory answers itself is no option beside it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitline.cli import app
from bitline.errors import ConversionError, DataError

RUN = Path(__file__).parents[2] / "experiments" / "networks" / "resnet20"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("cost", "--width=3"),
        ("cost", "--image-size=16"),
        ("cost", "--in-channels=1"),
        ("cost", "--classes=100"),
        ("evaluate", "--width=1"),
        ("evaluate", "--weights=/nonexistent.pt"),
    ],
)
def test_an_option_that_a_run_has_an_answer_to_is_refused_by_its_name(command, option):
    result = CliRunner().invoke(app, [command, str(RUN), option])
    assert isinstance(result.exception, DataError)
    assert f"is a run directory, which has its own {option.partition('=')[0]}: leave it out" in str(result.exception)


def test_a_network_of_other_images_is_told_which_options_say_what_an_image_is(tmp_path):
    file = tmp_path / "own.py"
    net = "nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3))"
    file.write_text(f"from torch import nn\n\nNet = lambda: {net}\n")
    refused = CliRunner().invoke(app, ["cost", f"{file}:Net"])
    assert isinstance(refused.exception, ConversionError)
    assert "--in-channels and --image-size say what an image is" in str(refused.exception)
    result = CliRunner().invoke(app, ["cost", f"{file}:Net", "--in-channels", "1", "--image-size", "8"])
    assert result.exit_code == 0, result.output
