"""What is missing from a run directory or was changed in it is named, and a damaged checkpoint is not resumed."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bitline import manifest
from bitline.errors import DataError
from bitline.files import CHIP, CONFIG, METRICS, RANGES, RECIPE, RECORD, WEIGHTS, read_json, write_json
from bitline.models.files import load_run
from bitline.train.checkpoint import load
from bitline.train.module import Classifier
from bitline.train.run import train
from run_samples import bitline, copied, recipe, settings, trained


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def whole(once) -> Path:
    return once("manifest", trained)


@pytest.fixture(scope="module")
def optimized(once, whole) -> Path:
    return once("manifest-recipe", lambda out: recipe(whole, out, "psum-aware", chip_epochs=1, epoch_images=128))


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory) -> Path:
    """A training that died in its last step, with checkpoints at steps 15 and 20."""
    out = tmp_path_factory.mktemp("runs") / "unfinished"
    original, calls = Classifier.training_step, 0

    def dying(self, *args):
        nonlocal calls
        calls += 1
        if calls == 23:
            raise KilledError
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "training_step", dying)
        with pytest.raises(KilledError):
            train(settings(out))
    return out


def flip(path: Path, place: float) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [WEIGHTS, RECORD, CONFIG, METRICS])
def test_a_file_of_a_training_that_is_missing_or_changed_is_named(tmp_path, whole, name):
    run = copied(whole, tmp_path / "run")
    flip(run / name, 0.5)
    with pytest.raises(DataError, match=f"{name} was changed; put back what was there, or .* bitline accept"):
        load_run(run)

    (run / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        load_run(run)


@pytest.mark.parametrize("name", [CHIP, RANGES, "recipe.json", WEIGHTS, "evaluation_before.json"])
def test_a_recipe_without_one_of_its_files_is_not_evaluated_as_something_else(tmp_path, optimized, name):
    run = copied(optimized, tmp_path / "run")
    (run / name).unlink()

    for command in ("evaluate", "cost", "report"):
        _, error = bitline(command, run, status=1)
        assert f"{name} is missing" in error


def test_weights_of_another_network_beside_the_ranges_of_a_recipe_are_refused(tmp_path, whole, optimized):
    run = copied(optimized, tmp_path / "run")
    shutil.copy(whole / WEIGHTS, run / WEIGHTS)

    with pytest.raises(DataError, match=r"model\.safetensors was changed"):
        load_run(run)


def test_a_chip_put_into_a_plain_run_is_refused(tmp_path, whole, optimized):
    run = copied(whole, tmp_path / "run")
    shutil.copy(optimized / CHIP, run)

    with pytest.raises(DataError, match=r"chip\.json was added"):
        load_run(run)


@pytest.mark.parametrize("name", [WEIGHTS, RECORD, METRICS])
def test_a_finished_run_without_a_result_is_not_resumed_but_named(tmp_path, whole, name):
    run = copied(whole, tmp_path / "run")
    (run / name).unlink()

    with pytest.raises(DataError, match=rf"{name} is missing.* or remove .*run\.json, and --resume"):
        train(settings(run), if_exists="resume")

    (run / "run.json").unlink()
    train(settings(run), if_exists="resume")  # as the message says
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_a_finished_recipe_without_its_weights_is_not_resumed_but_named(tmp_path, whole, optimized):
    run = copied(optimized, tmp_path / "run")
    (run / WEIGHTS).unlink()

    with pytest.raises(DataError, match=r"model\.safetensors is missing"):
        recipe(whole, run, "psum-aware", chip_epochs=1, epoch_images=128, if_exists="resume")


def test_an_edit_on_purpose_is_accepted_and_said_from_then_on(tmp_path, whole):
    run = copied(whole, tmp_path / "run")
    write_json(run / RECORD, read_json(run / RECORD) | {"title": "mine"})
    _, refused = bitline("evaluate", run, status=1)
    assert (
        f"model.json was changed; put back what was there, or take the files as they are with: bitline accept {run}"
        in (" ".join(refused.split()))
    )

    told, _ = bitline("accept", run)

    assert told.splitlines() == ["model.json was changed", f"{run}: accepted"]
    _, said = bitline("cost", run)
    assert f"{run} was edited after it was written, and accepted so: model.json" in said
    assert load_run(run).record.title == "mine"
    assert bitline("accept", run)[0] == f"{run} is as it was written\n"


@pytest.mark.parametrize("name", [CHIP, RANGES, RECIPE])
def test_what_decides_a_run_and_is_missing_cannot_be_accepted(tmp_path, optimized, name):
    run = copied(optimized, tmp_path / "run")
    assert (run / name).is_file()
    (run / name).unlink()
    for command in ("evaluate", "accept"):
        _, refused = bitline(command, run, status=1)
        assert name in refused
        assert "bitline accept" not in refused
    assert name in read_json(run / "run.json")["files"]


def test_a_run_of_an_earlier_version_is_read_and_said_to_be_unchecked(tmp_path, whole):
    run = copied(whole, tmp_path / "run")
    (run / "run.json").unlink()
    with pytest.raises(DataError, match=r"has no run\.json: the run is not finished .* or the file was lost"):
        load_run(run)

    config = read_json(run / CONFIG)
    del config["manifest"]
    write_json(run / CONFIG, config)
    _, said = bitline("cost", run)
    assert said.splitlines() == [
        f"{run} is of an earlier version, which wrote no run.json: whether its files belong together is not checked"
    ]


def test_the_manifest_has_size_digest_and_versions(whole):
    content = json.loads((whole / "run.json").read_text())

    assert set(content["files"]) == {WEIGHTS, RECORD, CONFIG, METRICS}
    assert content["files"][WEIGHTS]["bytes"] == (whole / WEIGHTS).stat().st_size
    assert set(content["written_by"]) == {"bitline", "torch"}
    assert not manifest.changes(whole)


@pytest.mark.parametrize("place", [0.01, 0.2, 0.5, 0.8, 0.99, 0.9999])
def test_a_flipped_bit_in_a_checkpoint_is_refused_and_the_one_before_it_named(tmp_path, whole, unfinished, place):
    run = copied(unfinished, tmp_path / "run")
    last = run / "checkpoints" / "last.ckpt"
    flip(last, place)

    with pytest.raises(DataError) as refused:
        train(settings(run), if_exists="resume")
    assert f"{last} is damaged: " in str(refused.value)
    assert "previous.ckpt (epoch 1, step 15) is whole: remove last.ckpt" in str(refused.value)

    last.unlink()
    train(settings(run), if_exists="resume")  # as the message says
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_random_bytes_in_both_checkpoints_leave_nothing_to_resume(tmp_path, unfinished, rng):
    run = copied(unfinished, tmp_path / "run")
    for name in ("last.ckpt", "previous.ckpt"):
        path = run / "checkpoints" / name
        content = bytearray(path.read_bytes())
        content[5000:9000] = bytes(torch.randint(256, (4000,), generator=rng, dtype=torch.uint8).tolist())
        path.write_bytes(content)

    with pytest.raises(DataError, match="no earlier checkpoint is whole: start again with --overwrite"):
        train(settings(run), if_exists="resume")


def test_a_checkpoint_of_an_earlier_version_is_resumed_and_said_to_be_unchecked(tmp_path, whole, unfinished, caplog):
    run = copied(unfinished, tmp_path / "run")
    last = run / "checkpoints" / "last.ckpt"
    torch.save(load(last), last)
    with pytest.raises(DataError, match="the SHA-256 that was written with it is gone"):
        train(settings(run), if_exists="resume")

    config = read_json(run / CONFIG)
    del config["manifest"]
    write_json(run / CONFIG, config)
    with caplog.at_level("INFO", "bitline"):
        train(settings(run), if_exists="resume")
    assert f"{last} is of an earlier version, which wrote no SHA-256: it is not checked" in caplog.messages
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.parametrize("harm", ["no weight", "wrong shape", "no optimizer", "no loops", "not a number", "a list"])
def test_a_checkpoint_that_does_not_fit_is_one_line_without_advice_to_unpickle(tmp_path, unfinished, harm):
    run = copied(unfinished, tmp_path / "run")
    config = read_json(run / CONFIG)
    del config["manifest"]
    write_json(run / CONFIG, config)
    last = run / "checkpoints" / "last.ckpt"
    content = load(last)
    state = content["state_dict"]
    name = next(name for name in state if name.startswith("network."))
    match harm:
        case "no weight":
            del state[name]
        case "wrong shape":
            state[name] = torch.zeros(3)
        case "no optimizer":
            content["optimizer_states"] = []
        case "no loops":
            del content["loops"]
        case "not a number":
            state[name][0] = torch.nan
        case _:
            content = [1]
    torch.save(content, last)

    _, error = bitline(*command(run), status=1)
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "last.ckpt" in lines[0]
    assert "weights_only" not in error


def command(run: Path) -> list[str]:
    """What `settings` are on the command line."""
    told = settings(run).model_dump(exclude={"model", "crop", "flip", "distill", "temperature"}, exclude_none=True)
    options = [f"--{key.replace('_', '-')}={value}" for key, value in told.items()]
    return ["train", "lenet5", *options, "--resume"]


def test_weights_that_are_not_finite_are_never_a_finished_run(tmp_path, whole):
    run = copied(whole, tmp_path / "run")
    (run / "run.json").unlink()
    config = read_json(run / CONFIG)
    del config["manifest"]
    write_json(run / CONFIG, config)
    (run / METRICS).unlink()
    last = run / "checkpoints" / "last.ckpt"
    content = load(last)
    content["state_dict"]["network.features.0.weight"].fill_(torch.nan)
    torch.save(content, last)  # with no epoch left to notice it

    with pytest.raises(DataError, match="NaN or infinite"):
        train(settings(run), if_exists="resume")
    assert not (run / METRICS).exists()
    assert all(tensor.isfinite().all() for tensor in load_file(run / WEIGHTS).values())


def test_kept_networks_of_earlier_versions_are_still_read():
    for run in sorted((Path(__file__).parents[2] / "experiments" / "networks").glob("*/model.json")):
        manifest.check(run.parent)


@pytest.mark.parametrize("name", [CONFIG, METRICS, WEIGHTS, RECORD])
def test_an_unfinished_run_cannot_be_accepted(tmp_path, whole, name):
    run = copied(whole, tmp_path / "run")
    for absent in ("run.json", name):
        (run / absent).unlink()

    _, error = bitline("accept", run, status=1)

    assert f"is no run directory that is finished: it has no {name}" in error
    assert not (run / "run.json").exists()


def test_a_recipe_without_its_evaluation_cannot_be_accepted(tmp_path, optimized):
    run = copied(optimized, tmp_path / "run")
    for absent in ("run.json", "evaluation.json"):
        (run / absent).unlink()

    assert "it has no evaluation.json" in bitline("accept", run, status=1)[1]


def test_a_manifest_that_was_lost_and_written_anew_is_said_from_then_on(tmp_path, whole):
    run = copied(whole, tmp_path / "run")
    (run / "run.json").unlink()
    bitline("accept", run)

    assert f"{run} was edited after it was written, and accepted so: run.json" in bitline("cost", run)[1]


def test_a_manifest_that_has_digests_of_bytes_alone_is_still_read(tmp_path, whole):
    run = copied(whole, tmp_path / "run")
    content = read_json(run / "run.json")
    for name in content["files"]:
        data = (run / name).read_bytes()
        content["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_json(run / "run.json", content)

    assert load_run(run)
