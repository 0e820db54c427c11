"""What cannot be done is refused before it is begun, and what would do nothing is refused rather than ignored."""

import json
from pathlib import Path

import pytest

from bitline.evaluation import on_chip as evaluate_run
from bitline.files import CONFIG, probe
from bitline.models.files import load_run
from bitline.recipes import stages
from bitline.train.module import Classifier
from run_samples import bitline, copied, trained, trained_from_file

SMALL = ("--chips", 1, "--images", 32, "--threads", 1)


@pytest.fixture(scope="module")
def run(once) -> Path:
    return once("refused", trained)


@pytest.fixture(scope="module")
def from_file(once) -> Path:
    return once("from-file", trained_from_file) / "run"


@pytest.fixture
def nothing_measured(monkeypatch):
    """Fail where a network is trained, calibrated or measured."""

    def measured(*_, **__):
        raise AssertionError("something was measured before the refusal")

    monkeypatch.setattr(evaluate_run, "calibrate", measured)
    monkeypatch.setattr(evaluate_run, "score", measured)
    monkeypatch.setattr(stages, "assess", measured)
    monkeypatch.setattr(Classifier, "training_step", measured)


# -- refused first


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "adc.bits=13"), "13"),
        (("--set", "cost_table=nowhere"), "nowhere"),
        (("--images", 0), "images is 0"),
        (("--images", 356), "images is 356; allowed: 1 to 355"),
        (("--calibration-images", 10**7), "calibration_images is 10000000; allowed: 1 to 1442"),
    ],
)
@pytest.mark.parametrize("command", [("evaluate",), ("optimize", "psum-aware")])
def test_what_has_no_price_or_no_images_is_refused_before_anything_is_measured(
    tmp_path, run, nothing_measured, command, options, said
):
    out = () if command == ("evaluate",) else ("--out", tmp_path / "out")

    _, error = bitline(*command, run, *options, *out, status=1)

    assert said in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["folder", "file/below.json", "n" * 300 + ".json"])
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "RUN", "--json", "PLACE"),
        ("evaluate", "RUN", "--html", "PLACE"),
        ("optimize", "psum-aware", "RUN", "--out", "OUT", "--json", "PLACE"),
        ("cost", "RUN", "--json", "PLACE"),
        ("export", "RUN", "--to", "conductances", "--out", "PLACE/deeper"),
        ("study", "partial-sums", "RUN", "--out", "PLACE/deeper"),
        ("train", "lenet5", "--data", "digits", "--out", "PLACE/deeper"),
        ("demo", "--out", "PLACE/deeper"),
        ("compare", "RUN", "RUN", "--html", "PLACE"),
        ("report", "RUN", "--html", "PLACE"),
    ],
    ids=lambda command: "-".join(each.strip("-") for each in command if each.islower()),
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path, run, nothing_measured, command, place
):
    (tmp_path / "folder" / "deeper").mkdir(parents=True)
    (tmp_path / "folder" / "deeper").rmdir()
    (tmp_path / "file").write_text("mine")
    if place == "folder" and any("deeper" in each for each in command):
        (tmp_path / "folder" / "deeper").write_text("mine")
    words = {
        "RUN": run,
        "PLACE": tmp_path / place,
        "OUT": tmp_path / "out",
        "PLACE/deeper": tmp_path / place / "deeper",
    }

    _, error = bitline(*(words.get(word, word) for word in command), status=1)

    assert len(error.splitlines()) == 1
    assert error.startswith("error: ")
    assert (tmp_path / "file").read_text() == "mine"
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.tmp"))
    assert not (tmp_path / "out").exists()


def test_a_part_of_a_run_is_never_overwritten_by_a_result(tmp_path, run, nothing_measured):
    whole = copied(run, tmp_path / "run")

    _, error = bitline("evaluate", whole, "--json", whole / "model.json", status=1)

    assert "it is part of the run" in error
    assert load_run(whole)


def test_an_evaluation_written_into_its_run_is_part_of_the_run(tmp_path, run):
    whole = copied(run, tmp_path / "run")
    bitline("evaluate", whole, *SMALL, "--json", whole / "evaluation.json")
    bitline("report", whole)

    (whole / "evaluation.json").write_text((whole / "evaluation.json").read_text().replace("float", "flaot", 1))

    _, error = bitline("report", whole, status=1)
    assert "evaluation.json was changed" in error


def test_tables_are_shown_even_where_a_page_cannot_be_written_in_the_end(tmp_path, run, monkeypatch):
    def full(*_, **__):
        from bitline.errors import ExportError

        raise ExportError("cannot write page: No space left on device")

    monkeypatch.setattr("bitline.report.html.write", full)

    shown, error = bitline("evaluate", run, *SMALL, "--json", tmp_path / "a.json", "--html", tmp_path / "a", status=1)

    assert "No space left" in error
    assert (tmp_path / "a.json").is_file()
    assert "accuracy" in shown


def test_probing_a_place_leaves_nothing_there(tmp_path):
    probe(tmp_path / "a" / "b" / "c.json")
    probe(Path("/dev/null"))

    assert not list(tmp_path.iterdir())


def test_a_recipe_file_without_settings_and_unknown_keys_of_a_configuration_are_one_line(tmp_path, run):
    for name, content, said in (
        ("recipe.json", {}, "recipe.json"),
        ("recipe.json", {"recipe": "psum-aware", "settings": []}, "settings"),
        (
            "recipe.json",
            {"recipe": "psum-aware", "version": 2, "settings": {"cls": 1, "run": "a"}},
            "unknown key 'cls'",
        ),
        (CONFIG, {"cls": 1, "model": "lenet5"}, "unknown key 'cls'"),
        (CONFIG, {"model": "lenet5", "epohcs": 2}, "did you mean 'epochs'"),
    ):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        (out / name).write_text(json.dumps(content))
        command = ("train", "lenet5", "--data", "digits") if name == CONFIG else ("optimize", "psum-aware", run)
        _, error = bitline(*command, "--out", out, "--resume", status=1)
        assert said in error
        assert str(out / name) in error
        assert len(error.splitlines()) == 1


# -- options without effect


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate", "RUN", "--weights", "/nonexistent.pt"), "leave it out"),
        (("evaluate", "RUN", "--width", 0.5), "leave it out"),
        (
            ("evaluate", "RUN", "--chips", 1, "--cause-chips", 50),
            "--cause-chips 50 does nothing here: there are only 1",
        ),
        (("evaluate", "RUN", "--chip", "rram-22nm", "--set", "adc.policy=full", "--in-turn"), "--in-turn does nothing"),
        (("evaluate", "--model", "NET", "--width", 2, "--weights", "w", "--data", "digits"), "takes no --width"),
        (("cost", "NET", "--classes", 5), "takes no --classes"),
        (("train", "lenet5", "--distill", 0.5), "--distill 0.5 does nothing here: there is no --teacher"),
        (("train", "lenet5", "--temperature", 2), "--temperature 2.0 does nothing here: there is no --teacher"),
        (("train", "lenet5", "--optimizer", "adam", "--momentum", 0.5), "--momentum 0.5 does nothing here"),
        (
            ("train", "lenet5", "--data", "digits", "--cutout", 1000, "--out", "OUT"),
            "cutout is 1000; allowed: 0 to 7 px",
        ),
        (("export", "RUN", "--to", "conductances", "--check", 5), "--check 5 does nothing here"),
        (
            ("export", "RUN", "--to", "conductances", "--accumulator-bits", 20),
            "--accumulator-bits 20 does nothing here",
        ),
        (("optimize", "psum-aware", "RUN", "--lr", 0.1), "lr is 0.1, which does nothing here: epochs is 0"),
        (("optimize", "psum-aware", "RUN", "--chips", 2, "--chips-before", 3), "there are only 2 chips"),
        (("optimize", "psum-aware", "RUN", "--chip-epochs", 0, "--chip-lr", 1), "nothing is trained on the chip"),
        (("optimize", "quantization-aware", "RUN", "--range-lr", 1), "aware is 'quantization', which has no ADC"),
        (("optimize", "auto", "RUN", "--trials", 2, "--front", 3), "there are only 2 trials"),
        (("optimize", "crimp", "RUN", "--no-kernel-groups", "--kernel-share", 0.3), "there is only one phase"),
        (("study", "partial-sums", "RUN", "--out", "OUT", "--layer-images", 1000), "layer_images is 1000"),
    ],
)
def test_an_option_that_would_do_nothing_is_an_error(tmp_path, run, from_file, nothing_measured, arguments, said):
    words = {"RUN": run, "OUT": tmp_path / "out", "NET": f"{from_file.parent / 'net.py'}:Net"}

    _, error = bitline(*(words.get(str(each), each) for each in arguments), status=1)

    assert said in error
    assert not (tmp_path / "out").exists()
