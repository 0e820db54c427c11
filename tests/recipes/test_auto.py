import json
from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from bitline import data as datasets
from bitline.errors import ConversionError, DataError
from bitline.models.files import load_run
from bitline.nn import crossbar_layers
from bitline.recipes import auto, checked
from bitline.recipes.auto import Search
from bitline.recipes.front import select, train_front
from bitline.recipes.journal import open_journal
from bitline.recipes.run import optimize
from bitline.seeds import derive

CHIP = ("adc.bits=4", "cell.read_noise={kind='none'}")
SMALL = {
    "recipe": "auto",
    "chip": "example-128",
    "overrides": CHIP,
    "epochs": 1,
    "chip_epochs": 1,
    "chips": 1,
    "images": 50,
    "calibration_images": 64,
    "structure_images": 64,
    "batch_size": 64,
    "test_images": 50,
    "threads": 1,
    "trials": 6,
    "front": 2,
    "proxy_steps": 3,
    "proxy_images": 64,
}


@pytest.mark.slow
def test_a_search_stores_its_trials_goes_on_after_a_stop_and_keeps_a_point_of_its_front(network, tmp_path):
    lines: list[str] = []

    class Stopped(Exception):  # noqa: N818
        pass

    def stop_after_two_trials(line):
        lines.append(line)
        if line.startswith("trial 2/"):
            raise Stopped

    config = checked(run=network, **SMALL, out=tmp_path / "auto")
    with pytest.raises(Stopped):
        optimize(config, say=stop_after_two_trials)
    folder = optimize(config, if_exists="resume", say=lines.append)

    numbers = [line.split(":")[0] for line in lines if line.startswith("trial ")]
    assert numbers == [f"trial {n}/6" for n in range(1, 7)]
    assert all("(proxy)" in line for line in lines if line.startswith("trial "))
    trials = json.loads((folder / "trials.json").read_text())
    assert len(trials["trials"]) == 6
    pure = [set(trial["layers"].values()) for trial in trials["trials"][:3]]
    assert pure == [{"dense"}, {"separable:1"}, {"separable:2"}]
    front = json.loads((folder / "front.json").read_text())
    assert len(front["points"]) == 2
    assert front["kept"] in {point["run"] for point in front["points"]}
    kept = json.loads((folder / front["kept"] / "evaluation.json").read_text())
    assert json.loads((folder / "evaluation.json").read_text()) == kept
    assert load_run(folder).record.model == "vgg8"


def _of_any_recipe(settings):
    return {
        key: value
        for key, value in settings.items()
        if key not in ("recipe", "trials", "front", "objectives") and not key.startswith("proxy")
    }


@pytest.mark.slow
def test_every_layer_gets_the_structure_it_was_given(network, tmp_path):
    layers = {"features.conv4.0": "separable:2", "features.conv6.0": "group:1+mix", "features.conv5.0": "dense"}
    settings = _of_any_recipe(SMALL)

    folder = optimize(checked(run=network, **settings, recipe="mixed", layers=layers, out=tmp_path / "mixed"))

    rewrites = {r.module: r.kind for r in load_run(folder).record.rewrites if r.kind != "fold"}
    assert rewrites == {"features.conv4.0": "separable", "features.conv6.0": "group"}
    found = {layer["name"]: layer for layer in json.loads((folder / "evaluation.json").read_text())["layers"]}
    assert found["features.conv6.0.conv"]["row_tiles"] == found["features.conv6.0.mix"]["row_tiles"] == 1


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"features.conv9.0": "separable:1"}, "no layer 'features.conv9.0'.*did you mean"),
        ({"features.conv4.0": "grop:1"}, "layer features.conv4.0 = 'grop:1'.*did you mean 'group:1'"),
    ],
)
def test_unknown_layers_and_structures_are_refused_by_name(network, tmp_path, layers, said):
    settings = _of_any_recipe(SMALL)
    with pytest.raises(DataError, match=said):
        optimize(checked(run=network, **settings, recipe="mixed", layers=layers, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def search(network, out, **changes):
    config = checked(run=network, **{**SMALL, "trials": 3, "proxy_steps": 1, **changes}, out=out)
    return Search(config, config.load_chip(), datasets.load("digits"), out, load_run(config.run))


def trials_of(out):
    return json.loads((out / "trials.json").read_text())["trials"]


def test_a_search_begins_with_the_chip_as_it_is_whatever_its_height_and_adc(network, tmp_path):
    odd = ("crossbar.rows=96", "crossbar.active_rows=96", "adc.bits=8", "adc.columns_per_adc=1")

    search(network, tmp_path, overrides=odd, trials=1).run(lambda _: None)

    params = trials_of(tmp_path)[0]["params"]
    assert (params["height"], params["adc_bits"], params["columns_per_adc"]) == (96, 8, 1)


def test_a_trial_that_cannot_be_built_says_why_and_counts(network, tmp_path, monkeypatch):
    def refuse(*_):
        raise ConversionError("no such thing")

    lines: list[str] = []
    monkeypatch.setattr(auto, "restructure", refuse)
    with pytest.raises(DataError, match="none of 3 trials can be built; the last one cannot be built: no such thing"):
        search(network, tmp_path).run(lines.append)

    assert lines == [f"trial {n}/3: cannot be built: no such thing" for n in (1, 2, 3)]


class KilledError(BaseException):
    """Ends a search as a signal does."""


@pytest.fixture
def instant(monkeypatch):
    """Trials that cost no time: what a chip is decides what comes of it."""

    def on_chip(self, network, chip):
        number = derive(chip.model_dump_json())
        cost = SimpleNamespace(energy_J=1e-6 + number % 89, area_m2=1e-6 + number % 83, latency_s=1e-6)
        return number % 97, cost, "exact"

    monkeypatch.setattr(auto, "restructure", lambda *_: SimpleNamespace(model=None))
    monkeypatch.setattr(Search, "_distil", lambda *_: None)
    monkeypatch.setattr(Search, "_on_chip", on_chip)


@pytest.mark.parametrize("place", ["suggest_categorical", "set_user_attr", "_on_chip"])
@pytest.mark.parametrize("call", [1, 4, 9, 16, 40, 70])
def test_a_search_killed_anywhere_makes_the_trials_of_an_undisturbed_one(
    network, tmp_path, monkeypatch, instant, place, call
):
    settings = {"trials": 20, "vary": ("height", "adc_bits", "encoding", "input_bits")}
    undisturbed = search(network, tmp_path / "a", **settings).run(lambda _: None)
    of = Search if place == "_on_chip" else optuna.Trial
    original, calls = getattr(of, place), 0

    def dying(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KilledError
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(of, place, dying)
        try:
            search(network, tmp_path / "b", **settings).run(lambda _: None)
        except KilledError:
            with (tmp_path / "b" / "trials.journal").open("ab") as journal:
                journal.write(b'{"op_code":')  # a line that was not completed
    resumed = search(network, tmp_path / "b", **settings).run(lambda _: None)

    assert calls >= call or place == "_on_chip"
    assert trials_of(tmp_path / "b") == trials_of(tmp_path / "a")
    assert [t.number for t in resumed] == [t.number for t in undisturbed]


class _Trial:
    def __init__(self, accuracy, energy):
        self.values, self.user_attrs = [accuracy], {"energy_J": energy, "accuracy": accuracy}


def test_the_points_to_train_span_the_energies_of_the_front_and_hold_its_most_accurate():
    front = [_Trial(accuracy, energy) for accuracy, energy in ((81, 1), (82, 2), (85, 4), (90, 8), (88, 16))]

    picked = select(front, 3, 10**6)

    assert picked[0] is front[0]
    assert front[3] in picked
    assert len(picked) == 3
    assert select(front, 9, 10**6) == front


def test_points_far_less_accurate_than_the_best_are_not_trained_while_there_are_others():
    hopeless, *others = [_Trial(accuracy, energy) for accuracy, energy in ((10, 1), (82, 2), (85, 4), (90, 8))]

    assert hopeless not in select([hopeless, *others], 2, 10**6)
    assert select([hopeless, *others], 3, 10**6) == others
    more = [_Trial(12, 0.5), hopeless, _Trial(85, 16), _Trial(90, 17)]
    assert select(more, 3, 10**6) == [more[0], *more[2:]]


@pytest.mark.slow
def test_a_search_varies_what_it_is_told_and_nothing_else(network, tmp_path):
    config = checked(
        run=network, **{**SMALL, "trials": 3, "proxy_steps": 1}, vary=("encoding", "weight_bits"), out=tmp_path
    )
    Search(config, config.load_chip(), datasets.load("digits"), tmp_path, load_run(config.run)).run(lambda _: None)

    trials = trials_of(tmp_path)
    assert len(trials) == 3
    assert [trial["params"] for trial in trials] == [
        {"encoding": "offset", "weight_bits": 8},
        {"encoding": "pair", "weight_bits": 8},
        {"encoding": "pair", "weight_bits": 7},
    ]
    assert trials[2]["overrides"] == ["weights.encoding=pair", "weights.bits=7"]
    assert all(trial["layers"] == {} for trial in trials)


@pytest.mark.slow
def test_guesses_that_differ_only_in_what_is_not_varied_are_tried_once(network, tmp_path):
    config = checked(run=network, **{**SMALL, "proxy_steps": 1}, vary=("encoding", "height"), out=tmp_path)

    Search(config, config.load_chip(), datasets.load("digits"), tmp_path, load_run(config.run)).run(lambda _: None)

    storage = JournalStorage(JournalFileBackend(str(tmp_path / "trials.journal")))
    trials = optuna.load_study(study_name="auto", storage=storage).trials
    begun = [trial.system_attrs["fixed_params"] for trial in trials if "fixed_params" in trial.system_attrs]
    assert begun == [{"encoding": "offset", "height": 128}, {"encoding": "pair", "height": 512}]


@pytest.mark.slow
def test_a_trial_of_the_same_choices_as_an_earlier_one_is_not_made_again(network, tmp_path, monkeypatch):
    made: list[object] = []
    config = checked(run=network, **{**SMALL, "trials": 6, "proxy_steps": 0}, vary=("encoding",), out=tmp_path)
    search = Search(config, config.load_chip(), datasets.load("digits"), tmp_path, load_run(config.run))
    monkeypatch.setattr(search, "_distil", made.append)

    front = search.run(lambda _: None)

    assert len(made) == 2
    assert len(trials_of(tmp_path)) == 6
    assert len(front) <= 2


def test_what_cannot_be_searched_is_refused(network, tmp_path):
    tall = (*CHIP, "crossbar.rows=4096", "crossbar.active_rows=4096")
    config = checked(run=network, **{**SMALL, "overrides": tall}, vary=("structure",), out=tmp_path)
    with pytest.raises(DataError, match="nothing to search: no layer needs partial sums"):
        Search(config, config.load_chip(), datasets.load("digits"), tmp_path, load_run(config.run)).run(print)
    with pytest.raises(DataError, match=r"vary is 'encodings'; allowed: structure.*did you mean 'encoding'"):
        checked(run=network, **SMALL, vary=("encodings",), out=tmp_path)


@pytest.mark.slow
def test_a_search_does_not_go_on_among_other_values(network, tmp_path, monkeypatch):
    search(network, tmp_path, trials=1).run(lambda _: None)
    monkeypatch.setitem(auto.VALUES, "height", (32, 64))
    with pytest.raises(DataError, match=r"chose among other values; start again with --overwrite"):
        search(network, tmp_path, trials=2).run(lambda _: None)


def test_of_trials_that_their_images_cannot_tell_apart_the_cheapest_is_the_best():
    front = [_Trial(85.0, 1), _Trial(93.8, 2), _Trial(94.1, 4)]

    assert select(front, 1, 256) == [front[1]]
    assert select(front, 1, 10**6) == [front[2]]


@pytest.mark.parametrize(
    ("aware", "layers", "recipe", "epochs"),
    [
        ("psum", {"a": "group:1"}, "mixed", 10),
        ("psum", {"a": "dense"}, "psum-aware", 0),
        ("none", {"a": "dense"}, "mixed", 10),
        ("none", {}, "conventional", 10),
    ],
)
def test_a_point_is_trained_by_the_recipe_that_its_layers_and_the_chip_need(tmp_path, aware, layers, recipe, epochs):
    trial = _Trial(90, 1)
    trial.number, trial.user_attrs = 3, {"overrides": ["adc.bits=5"], "layers": layers}
    config = checked(run="any", recipe="auto", aware=aware, overrides=("adc.bits=4",), lr=0.1, refit=False)
    points = []

    def train(point):
        points.append(point)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train_front(config, tmp_path, [trial], train)

    (point,) = points
    assert (point.name(), point.epochs, point.lr, point.out) == (recipe, epochs, 0.1, tmp_path / "trial003")
    assert point.overrides == ("adc.bits=4", "adc.bits=5")


@pytest.mark.slow
def test_starts_that_failed_in_a_journal_of_an_earlier_version_are_tried_again(network, tmp_path):
    config = checked(run=network, **{**SMALL, "trials": 2, "proxy_steps": 0}, vary=("encoding",), out=tmp_path)
    search = Search(config, config.load_chip(), datasets.load("digits"), tmp_path, load_run(config.run))
    up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    study = open_journal(tmp_path / "trials.journal", [up, down, down])
    starts = [{"encoding": "offset"}, {"encoding": "pair"}]
    for start in starts:
        study.enqueue_trial(start)
        study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)

    search.run(lambda _: None)

    done = [trial for trial in trials_of(tmp_path) if trial["state"] == "complete"]
    assert [trial["params"] for trial in done] == starts


@pytest.mark.parametrize("holds", [True, False])
def test_trials_are_estimated_by_the_surrogate_where_it_holds(network, tmp_path, monkeypatch, holds):
    told = {**SMALL, "chip_epochs": 2, "trials": 1, "front": 1, "proxy_steps": 0, "overrides": ("adc.bits=8",)}
    config = checked(run=network, **told, vary=("adc_bits",), simulation="surrogate", out=tmp_path)
    modes: list[str] = []
    original = auto.measure

    def measured(model, batches):
        found = original(model, batches)
        for layer in crossbar_layers(model).values():
            layer.register_forward_pre_hook(lambda layer, _: modes.append(layer.mode))
        share = 0.0 if holds else 0.9
        return replace(found, layers={name: replace(own, overflows=share) for name, own in found.layers.items()})

    monkeypatch.setattr(auto, "measure", measured)
    lines: list[str] = []
    Search(config, config.load_chip(), datasets.load("digits"), tmp_path, load_run(config.run)).run(lines.append)

    assert modes
    assert ("surrogate" in modes) == holds
    (trial,) = trials_of(tmp_path)
    assert trial["simulation"] == ("surrogate" if holds else "exact, since the surrogate does not hold")
    assert ("proxy, by the surrogate" if holds else "proxy, exactly: the surrogate does not hold") in lines[0]
    assert "; ;" not in lines[0]
    assert not lines[0].endswith(("; ", ";"))
