import subprocess
import sys

import pytest

from bitline.cli import main
from bitline.errors import DataError


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bitline", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_the_command_trains_and_ends_with_the_accuracy_and_the_place(monkeypatch, capsys, tmp_path):
    out = tmp_path / "run"

    code = run(monkeypatch, "train", "lenet5", "--data", "digits", "--epochs", 1, "--threads", 1, "--out", out)

    assert code == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"of 355 test images of digits 8x8  ->  {out}")


def test_an_error_is_one_line_and_exit_status_1(monkeypatch, capsys):
    code = run(monkeypatch, "train", "vgg9")

    captured = capsys.readouterr()
    assert code == 1
    assert captured.err.startswith("error: model is 'vgg9'; allowed: vgg8, ")
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


@pytest.mark.parametrize("where", [0, 2])
def test_debug_shows_the_traceback_wherever_it_stands(monkeypatch, where):
    arguments = ["train", "vgg9"]
    arguments.insert(where, "--debug")
    monkeypatch.setattr(sys, "argv", ["bitline", *arguments])

    with pytest.raises(DataError):
        main()


def test_resume_and_overwrite_exclude_each_other(monkeypatch, capsys):
    assert run(monkeypatch, "train", "vgg8", "--resume", "--overwrite") == 1
    assert "exclude each other" in capsys.readouterr().err


def test_help_has_examples_and_every_option_of_the_configuration(monkeypatch, capsys):
    from bitline.train import TrainConfig

    assert run(monkeypatch, "train", "--help") == 0
    text = capsys.readouterr().out
    assert "bitline train lenet5 --data digits" in text
    for key in set(TrainConfig.model_fields) - {"model"}:
        assert f"--{key.replace('_', '-')}" in text


def test_the_command_line_data_and_models_load_neither_lightning_nor_datasets():
    code = (
        "import sys, bitline.cli, bitline.data, bitline.models.files, bitline.train\n"
        "print([name for name in ('lightning', 'datasets', 'sklearn', 'tensorboard') if name in sys.modules])"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
