"""`bitline report` as a user starts it: what it shows comes from the file alone."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitline.cli import app
from bitline.errors import DataError
from bitline.evaluation import Evaluation
from bitline.report import html
from evaluation_samples import evaluation, record


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluation()))
    return tmp_path / "run"


def report(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_directory_and_its_file_give_the_same_tables(run: Path):
    shown = report(run)
    assert shown == report(run / "evaluation.json")
    assert "vgg8 width 0.5 on rram-22nm" in shown


def test_the_page_from_a_file_is_the_one_that_evaluate_makes(run: Path, tmp_path: Path):
    said = report(run, "--html", tmp_path / "page.html")
    assert said.split() == ["page:", str(tmp_path / "page.html")]
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == html.render(record())


def test_the_schema_needs_no_run():
    assert json.loads(report("--schema")) == Evaluation.model_json_schema()


def test_help_has_examples():
    shown = report("--help")
    assert "Examples" in shown
    assert "--html" in shown


def test_what_is_no_evaluation_is_named(run: Path, tmp_path: Path):
    with pytest.raises(DataError, match="no such run directory: nowhere"):
        report("nowhere")
    with pytest.raises(DataError, match=r"has no evaluation\.json; make it with: bitline evaluate "):
        report(tmp_path)
    content = evaluation()
    del content["cost"]["energy_J"]
    (run / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"evaluation\.json: cost\.energy_J is missing$"):
        report(run)
