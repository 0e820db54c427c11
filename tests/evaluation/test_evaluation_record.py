"""The record of an evaluation and its file: the schema, the same content when read again, older files, broken files."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bitline.errors import DataError
from bitline.evaluation import Evaluation, load
from bitline.evaluation.record import Accuracy
from evaluation_files import check, check_file, problems
from evaluation_samples import evaluation

FORMAT_1 = Path(__file__).parent / "evaluation_format_1.json"


def write(content: Any, folder: Path) -> Path:
    path = folder / "evaluation.json"
    path.write_text(json.dumps(content))
    return path


def changed(key: str, value: Any = None) -> dict[str, Any]:
    """The sample with one key set, or taken away where the value is None."""
    content = evaluation()
    *above, last = key.split(".")
    part: Any = content
    for name in above:
        part = part[int(name) if isinstance(part, list) else name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return content


def test_the_sample_is_an_evaluation_of_the_schema_and_the_same_when_read_again(tmp_path):
    record = Evaluation.model_validate(evaluation())
    assert check(record, tmp_path) == evaluation()
    assert record.layers[0].sums is not None


def test_a_file_says_its_format_first(tmp_path):
    assert next(iter(check(Evaluation.model_validate(evaluation()), tmp_path).items())) == ("format", 2)


def test_the_schema_refuses_what_the_record_refuses():
    schema = Evaluation.model_json_schema()
    for content in (changed("cost.energy_J"), changed("surprise", 1), changed("layers.0.rows", "many"), {}):
        assert problems(content, schema, schema["$defs"])
        with pytest.raises(ValidationError):
            Evaluation.model_validate(content)


def test_a_record_cannot_be_changed():
    record = Evaluation.model_validate(evaluation())
    with pytest.raises(ValidationError, match="frozen"):
        record.model = "another"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_file_of_format_1_is_read_as_what_it_said_then(tmp_path):
    old, record = json.loads(FORMAT_1.read_text()), load(FORMAT_1)
    assert "format" not in old
    new = check(record, tmp_path)
    assert (new.pop("format"), new.pop("bias_correction")) == (2, old.pop("recentred"))
    assert new.pop("simulation")["kind"] == "exact"
    assert new["chip"]["inputs"].pop("zero_point") is False
    assert new == old


def test_keys_that_the_earliest_files_lack_have_the_only_value_there_was(tmp_path):
    content = evaluation()
    early = copy.deepcopy(content)
    for key in ("format", "bias_correction", "ranges", "simulation"):
        del early[key]
    for layer in early["layers"]:
        for key in ("strategy", "crossbars_removed", "steps"):
            del layer[key]
    del early["chip"]["mitigation"]
    assert load(write(early, tmp_path)) == Evaluation.model_validate(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "is no evaluation: it has no accuracy, cost, layers"),
        ({"recipe": "group", "layers": []}, "is no evaluation: it has no accuracy, cost"),
        (changed("format", 3), "has format 3; allowed: 2, or none as the earliest have; evaluate again, or read it"),
        (changed("cost.energy_J"), ": cost.energy_J is missing"),
        (changed("layers.2.row_tiles", -1), ": layers.2.row_tiles = -1: input should be greater than or equal to 0"),
        (changed("layers.1.partial_sums.lsb"), ": layers.1.partial_sums.lsb is missing"),
        (changed("layers.0.enegy_J", 1.0), ": unknown key layers.0.enegy_J; did you mean 'energy_J'?"),
        (changed("layers.1.partial_sums.lsbs", 1.0), ": unknown key layers.1.partial_sums.lsbs; did you mean 'lsb'?"),
        (changed("cost.adc_range.table.enegy_J", 1.0), "; did you mean 'energy_J'?"),
        (changed("modle", "x"), ": unknown key modle; did you mean 'model'?"),
        (changed("layers.0.energy_J", math.inf), ": Infinity is no number that JSON knows"),
        (changed("accuracy.float", math.nan), ": NaN is no number that JSON knows"),
        (changed("accuracy.float", 120.0), ": accuracy.float = 120.0: input should be less than or equal to 100"),
        (changed("accuracy.worst"), ": accuracy: worst is None with 20 chips"),
        (changed("seeds", [0, 1]), ": 2 seeds for 20 chips"),
        (changed("causes.0.cause", "weather"), ": causes.0.cause = 'weather': input should be 'quantization', 'adc'"),
        (changed("chip"), ": chip is missing"),
        (changed("chip", []), ": chip = []: expected an object"),
        (changed("chip.adc.bitts", 4), ": chip: unknown key adc.bitts; did you mean 'bits'?"),
        (changed("layers", 7), ": layers = 7: input should be a valid "),
    ],
)
def test_a_file_that_is_no_evaluation_is_refused_in_one_line_that_names_file_and_key(content, words, tmp_path):
    path = write(content, tmp_path)
    with pytest.raises(DataError) as refused:
        load(path)
    assert str(refused.value).removeprefix("cannot read ").startswith(str(path))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "evaluation.json"
    for text in ("", "{", "[]"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"evaluation\.json"):
            load(path)


def test_mean_std_and_worst_are_there_where_chips_are():
    assert Accuracy.of(90.0, 89.0, []).model_dump() == {"float": 90.0, "ideal_integer": 89.0, "chips": ()}
    accuracy = Accuracy.of(90.0, 89.0, [80.0, 84.0])
    assert (accuracy.mean, accuracy.std, accuracy.worst) == (82.0, pytest.approx(8**0.5), 80.0)
    assert accuracy.spread is not None
    assert accuracy.spread.standard_error == pytest.approx(2.0)


def test_the_file_of_format_1_is_not_touched(tmp_path):
    before = FORMAT_1.read_bytes()
    load(FORMAT_1)
    assert FORMAT_1.read_bytes() == before
    with pytest.raises(AssertionError):
        check_file(FORMAT_1)
