"""What users of a command line expect of every one."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from bitline import __version__
from bitline import chip as chips
from bitline.cli import app
from bitline.evaluation import Settings, assess, put_on_chip
from bitline.evaluation.journal import Journal, digest
from bitline.evaluation.workers import Job
from bitline.report import terminal
from bitline.report.tables import Cell, Head, Sheet
from run_samples import bitline, copied, trained
from study_samples import network

SMALL = ("--chips", 2, "--images", 16, "--calibration-images", 32, "--threads", 1)
NAMES = sorted(command.name or "" for command in app.registered_commands)


@pytest.fixture(scope="module")
def run(once) -> Path:
    return once("refused", trained)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bitline" / "evaluations"


def test_the_version_is_told():
    assert bitline("--version")[0] == bitline("-V")[0] == f"bitline {__version__}\n"


@pytest.mark.parametrize("words", [(), *((name,) for name in NAMES), ("chips", "show"), ("optimize", "group")])
def test_h_is_help(words: tuple[str, ...]):
    assert "Usage" in bitline(*words, "-h")[0]


def test_the_shell_can_complete():
    assert "--install-completion" in bitline("--help")[0]


@pytest.mark.parametrize(
    "command",
    [
        ("cost", "lenet5"),
        ("chips",),
        ("chips", "show", "rram-22nm"),
        ("doctor",),
        ("study", "adc-rounding", "--columns", 10),
    ],
)
def test_json_goes_to_a_file_or_with_a_dash_to_the_terminal_and_nothing_else_does(tmp_path, command):
    printed, _ = bitline(*command, "--json", "-")
    bitline(*command, "--json", tmp_path / "deeper" / "out.json")
    assert json.loads(printed) == json.loads((tmp_path / "deeper" / "out.json").read_text())
    assert not Path("-").exists()
    _, error = bitline(*command, "--json", tmp_path, status=1)
    assert "it is a folder" in error


@pytest.mark.parametrize("name", ["train", "evaluate", "export", "demo", "report", "compare", "doctor", "cost"])
def test_every_command_that_finds_something_has_json(name):
    assert "--json" in bitline(name, "--help")[0]


def test_training_where_nothing_can_be_written_is_refused_in_a_line():
    _, error = bitline("train", "lenet5", "--data", "digits", "--epochs", 1, "--out", "/proc/nowhere/run", status=1)
    assert len(error.splitlines()) == 1
    assert "cannot write /proc/nowhere/run" in error


def test_a_path_that_does_not_run_here_ends_doctor_with_1(monkeypatch):
    monkeypatch.setenv("BITLINE_PATH", "foo")
    out, error = bitline("doctor", status=1)
    assert "BITLINE_PATH = 'foo' does not run here" in error
    assert "processor" in out


def test_an_evaluation_is_left_in_its_run_and_compared_from_there(tmp_path, run):
    runs = [copied(run, tmp_path / name) for name in ("a", "b")]
    for place, bits in zip(runs, (4, 8), strict=True):
        out, _ = bitline("evaluate", place, *SMALL, "--set", f"adc.bits={bits}")
        assert f"left in the run, for bitline compare and report: {place / 'evaluation.json'}" in out.replace("\n", "")
    out, error = bitline("compare", *runs)
    assert "on 2 chips" in out
    assert "adc.bits" in out
    assert "not the same" not in error
    assert "float" in bitline("report", runs[0])[0]
    again = json.loads(bitline("report", runs[0], "--json", "-")[0])
    assert again == json.loads((runs[0] / "evaluation.json").read_text())


# -- stopped


def stop_after(count: int, ask):
    def asked(jobs: Sequence[Job]) -> Iterator[float]:
        for number, figure in enumerate(ask(jobs)):
            if number == count:
                raise KeyboardInterrupt
            yield figure

    return asked


def test_finished_chips_of_an_evaluation_that_is_stopped_are_not_asked_again(cache, monkeypatch):
    small = network()
    chip = chips.load("example-128", ["adc.bits=4", "cell.read_noise.kind=none"])
    settings = Settings(chips=4, images=40, cause_chips=2)
    whole = assess(small.model, small.data, chip, settings)
    through = Journal.through
    monkeypatch.setattr(Journal, "through", lambda self, ask, jobs: through(self, stop_after(3, ask), jobs))
    with pytest.raises(KeyboardInterrupt):
        assess(small.model, small.data, chip, settings, keep="new")
    (kept,) = cache.glob("*.json")
    assert len(json.loads(kept.read_text())) == 3
    asked: list[int] = []

    def counted(self, ask, jobs):
        return through(self, lambda rest: asked.append(len(rest)) or ask(rest), jobs)

    monkeypatch.setattr(Journal, "through", counted)
    resumed = assess(small.model, small.data, chip, settings, keep="resume")
    changing = {"timing", "environment"}
    assert resumed.model_dump(exclude=changing) == whole.model_dump(exclude=changing)
    assess(small.model, small.data, chip, settings)
    assert asked[0] == asked[1] - 3
    assert not list(cache.glob("*.json")), "nothing is kept of what is finished"


def test_another_evaluation_has_another_journal():
    small = network()

    def of(*keys: str, **settings: int) -> str:
        return digest(put_on_chip(small.model, small.data, chips.load("example-128", keys), Settings(**settings)))

    first = of(images=40)
    assert first == of(images=40, chips=3), "more chips of the same"
    others = [of(images=41), of("adc.bits=5", images=40), of(images=40, calibration_images=100)]
    with torch.no_grad():
        weight = next(small.model.parameters())
        weight.mul_(1.5)
        others.append(of(images=40))
        weight.div_(1.5)
    assert len({first, *others}) == 5


def test_a_cache_that_cannot_be_written_to_hinders_no_evaluation(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    small = network()
    chip = chips.load("example-128", ["adc.bits=4"])
    assert len(assess(small.model, small.data, chip, Settings(chips=1, images=8), keep="new").seeds) == 1


def test_a_wide_table_of_few_lines_is_turned_where_it_does_not_fit():
    from rich.console import Console

    heads = [Head("run", numeric=False), *(Head(f"quantity {i}", "nJ", "group" * (i > 8)) for i in range(10))]
    rows = [[Cell(name), *(Cell(f"{i}.{name}") for i in range(10))] for name in ("one", "two")]
    sheet = Sheet("all", heads, rows)
    assert terminal.turned(sheet, Console(width=300)) is sheet
    narrow = terminal.turned(sheet, Console(width=80))
    assert [head.name for head in narrow.heads] == ["", "one", "two"]
    assert [cell.text for cell in narrow.rows[0]] == ["quantity 0 [nJ]", "0.one", "0.two"]
    assert narrow.rows[9][0].text == "group: quantity 9 [nJ]"
    console = Console(width=80, file=sys.stderr, record=True)
    terminal.print_sheet(narrow, console)
    assert max(map(len, console.export_text().splitlines())) <= 80
