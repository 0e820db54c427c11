"""From a trained network to one that suits its crossbars: restructure, train in floating point, train on the chip."""

from dataclasses import replace
from pathlib import Path

from bitline import manifest
from bitline.chip.description import Chip
from bitline.data import DataSet
from bitline.errors import ConversionError, DataError
from bitline.evaluation.sanity import check_recorded
from bitline.evaluation.task import CALIBRATION_BATCH
from bitline.files import BEFORE, FLOAT, START, UNTRAINED
from bitline.lock import locked
from bitline.models.files import Run, load_run
from bitline.network.copy import copied
from bitline.network.trace import matmuls
from bitline.recipes import group, recipe_file
from bitline.recipes.auto import Search
from bitline.recipes.crimp import chip_of
from bitline.recipes.files import RESULT, Say, clear, copy, finished, prepare, write_run
from bitline.recipes.front import select, train_front
from bitline.recipes.on_chip import OnChipTraining, check_tiles, what_answers
from bitline.recipes.pruning import Pruning
from bitline.recipes.records.auto import Auto
from bitline.recipes.records.base import Recipe
from bitline.recipes.records.crimp import Crimp
from bitline.recipes.records.group import Group
from bitline.recipes.records.mixed import Mixed
from bitline.recipes.records.on_chip import RangeTraining
from bitline.recipes.records.structure import NewStructure
from bitline.recipes.stages import Stages
from bitline.recipes.structure import check_layers, restructure
from bitline.train.hardware import torch_device
from bitline.train.run import check_counts, train_network
from bitline.train.rundir import IfExists
from bitline.train.rundir import finished as finished_training


def optimize(
    config: Recipe,
    *,
    if_exists: IfExists = "refuse",
    say: Say = lambda _: None,
    progress: bool = False,
    trust_code: bool = False,
) -> Path:
    """Run a recipe on a trained network.

    Args:
        config: which network, recipe, chip and how.
        if_exists: a run directory that is already there is refused, resumed with the same configuration (a finished
            one is left as it is), or overwritten.
        say: told what begins and what came of it.
        progress: show bars.
        trust_code: run the Python file that the run directory names, if its network came from ``FILE.py:NAME``.

    Returns:
        The run directory: the network as ``bitline train`` leaves it, with ``chip.json``, ``recipe.json``, ADC ranges
        where they were trained, and evaluations of the network it came from, of the new structure before any training
        and of the result, all on the same programmed chips.

    Raises:
        DataError: the run or its directory cannot be used, or another process uses it.
        ChipError: no such chip.
        ConversionError: the network does not fit the recipe.
    """
    if _done(config, if_exists):  # of which nothing is written, perhaps because nothing can be
        return config.run_dir
    with locked(config.run_dir):
        return _optimize(config, if_exists, say, progress=progress, trust_code=trust_code)


def _done(config: Recipe, if_exists: IfExists) -> bool:
    """Tell whether a recipe to be resumed is finished; refuse one that is not whole or not the one asked for."""
    if if_exists != "resume" or not finished(config.run_dir):
        return False
    prepare(config.run_dir, config, if_exists)
    manifest.check(config.run_dir)
    return True


def _optimize(config: Recipe, if_exists: IfExists, say: Say, *, progress: bool, trust_code: bool) -> Path:
    """Run a recipe in a directory that no other process uses."""
    if _done(config, if_exists):  # by a process that held the lock
        return config.run_dir
    torch_device(config.device)
    chip, out = config.load_chip(), config.run_dir
    target = chip_of(chip, config) if isinstance(config, Crimp) else chip
    origin = load_run(config.run, trust_code=trust_code)
    if isinstance(config, Mixed):
        example = (origin.record.channels, origin.record.image_size, origin.record.image_size)
        check_layers(matmuls(origin.model, example), config.layers)
    resumed = prepare(out, config, if_exists)
    data = origin.record.load(data=config.data, data_dir=config.data_dir)
    if config.teacher is None or config.teacher == config.run:
        teacher = replace(origin, model=copied(origin.model))  # its own, since training freezes and moves it
    else:
        teacher = load_run(config.teacher, trust_code=trust_code)
    stages = Stages(config, target, data, out, say, progress, teacher, trust_code)
    if not resumed:
        _check_settings(config, data)
        check_recorded(origin.model, data, origin.record, origin.metrics, config.run, other=_other(config))
        stages.check_priced(origin.model, chip, BEFORE)
        if isinstance(config, Group):
            group.check(origin.model, chip, config)
        if not isinstance(config, NewStructure | Auto):  # whose networks are others, and are checked when they are made
            _check_fits(stages, origin, target)
            if isinstance(config, RangeTraining):
                check_tiles(config, matmuls(origin.model, data.train_images.shape[1:]), target)
        clear(out)
    recipe_file.write(out, config)
    stages.measure(BEFORE, origin, chip)
    if isinstance(config, Auto):

        def again(point: Recipe) -> Path:
            return optimize(point, if_exists="resume", say=say, progress=progress, trust_code=trust_code)

        front = select(Search(config, chip, data, out, origin).run(say), config.front, config.proxy_images)
        best = train_front(config, out, front, again)
        copy(best, out, RESULT)
        manifest.write(out)
        return out
    stages.keep(Pruning(stages, config).run(origin) if isinstance(config, Crimp) else _train(stages, origin))
    return out


def _other(config: Recipe) -> str:
    """What images the recipe is given instead of those of the run."""
    given = {"--data": config.data, "--data-dir": config.data_dir}
    return ", ".join(f"{key} {value}" for key, value in given.items() if value is not None)


def _check_fits(stages: Stages, origin: Run, target: Chip) -> None:
    """Refuse a network that the recipe would fail with after hours.

    Raises:
        ConversionError: it does not fit on the chip, or, where the recipe wants integers, has no integer form.
    """
    try:
        stages.check_priced(origin.model, target)
    except ConversionError as error:
        if isinstance(stages.config, Crimp) and stages.config.integer and "integer" in str(error):
            raise ConversionError(f"{error}; --no-integer does without") from error
        raise


def _check_settings(config: Recipe, data: DataSet) -> None:
    """Refuse at the start what would fail after hours."""
    check_counts(data, batch_size=config.batch_size, epoch_images=config.epoch_images)
    count = len(data.train_images)
    for name in ("structure_images", "proxy_images"):
        given = getattr(config, name, 0)
        if given > count and name in config.model_fields_set:
            raise DataError(f"{name} is {given}; allowed: 1 to {count}, the training images of {data.title}")


def _train(stages: Stages, origin: Run) -> Path:
    """Restructure where the recipe does, train in floating point after the teacher, then on the chip."""
    config, last = stages.config, stages.config.run
    if isinstance(config, NewStructure):
        last = _restructure(stages, config, origin)
    if config.epochs:
        run = stages.load(last)
        train = stages.training(FLOAT, run, epochs=config.epochs, lr=config.lr)
        last = stages.train(
            train,
            lambda train, resumed: train_network(
                run.model.train(), run.record, train, stages.data, resumed=resumed, teacher=stages.teacher
            ),
        )
    if isinstance(config, RangeTraining) and config.epochs_on_chip:
        run = stages.load(last)
        training = OnChipTraining(run.model, run.record, stages.chip, config, stages.data, stages.teacher)
        train = stages.training_on_chip(run, config, epochs=config.epochs_on_chip)
        check_tiles(config, matmuls(run.model, stages.data.train_images.shape[1:]), training.training_chip)
        last = stages.train(
            train, lambda train, resumed: training.run(train, resumed=resumed), how=what_answers(config)
        )
    return last


def _restructure(stages: Stages, config: NewStructure, origin: Run) -> Path:
    """Give layers their new structure, and measure the network before any training."""
    folder, data = stages.out / START, stages.data
    if not finished_training(folder):
        stages.say(f"restructuring: {config.name()}")
        count = min(config.structure_images, len(data.train_images))
        batches = [x for x, _ in data.batches("train", batch_size=CALIBRATION_BATCH, limit=count)]
        new = restructure(origin.model, batches, stages.chip, config)
        nothing = "changes no layer: each fits its crossbar, or is none that it can change; training alone is left"
        stages.say(str(new.report) or f"{config.name()} {nothing}")
        record = origin.record.model_copy(update={"rewrites": (*origin.record.rewrites, *new.rewrites)})
        write_run(folder, new.model, record, {"seed": config.seed}, stages.score(new.model))
    stages.measure(UNTRAINED, stages.load(folder), stages.chip)
    return folder
