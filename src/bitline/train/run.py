"""A training run from configuration to run directory, resumable at any moment."""

import functools
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn

from bitline import manifest
from bitline.data import DataSet, load
from bitline.errors import DataError
from bitline.files import CHECKPOINT, CONFIG, LOGS, METRICS, RECORD, WEIGHTS, read_json, write_json, write_network
from bitline.lock import locked
from bitline.models.files import Run, load_run
from bitline.models.record import ModelRecord
from bitline.models.spec import arguments, check_spec, make
from bitline.models.weights import check_weights, load_weights
from bitline.train.checkpoint import AtomicCheckpointIO, WithinEpoch, to_resume
from bitline.train.config import TrainConfig
from bitline.train.hardware import best_precision, describe, git_commit, keep_freed_memory, threads_here, torch_device
from bitline.train.loader import TestBatches, TrainBatches
from bitline.train.module import Classifier
from bitline.train.progress import ProgressLine
from bitline.train.rundir import IfExists, check_finished, clear, finished, prepare
from bitline.train.teacher import teacher_of


def train(config: TrainConfig, *, if_exists: IfExists = "refuse", trust_code: bool = False) -> Path:
    """Train a network and write its run directory.

    The weights kept are those of the last epoch; the test images measure and never choose.

    Args:
        config: what to train, on what, and how.
        if_exists: a run directory that is already there is refused, resumed from its last checkpoint with the same
            configuration (a finished run is left as it is), or overwritten.
        trust_code: run the Python file that the run directory of the teacher names, if there is one.

    Returns:
        The run directory, with ``model.safetensors``, ``model.json``, ``config.json``, ``metrics.json``,
        ``run.json``, ``checkpoints/last.ckpt`` and ``logs/``.

    Raises:
        DataError: data, model or run directory cannot be used, another process uses it, what it holds is damaged, or a
            resume with another configuration.
        ExportError: the run directory cannot be written.
    """
    out = config.run_dir
    torch_device(config.device)
    if _done(out, config, if_exists):  # of which nothing is written, perhaps because nothing can be
        return out
    with locked(out):
        saved = prepare(out, config, if_exists)
        if _done(out, config, if_exists):  # by a process that held the lock
            return out
        check_spec(config.model)
        data = load(config.data, data_dir=config.data_dir, image_size=config.image_size, **config.source)
        config = saved or config
        teacher = None if config.teacher is None else load_run(config.teacher, trust_code=trust_code)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            record = _record(config, data)
            if saved is not None:
                _check_code(out, config, record)
            network = make(record.spec, **record.kwargs)
            if config.init is not None:
                record = _initialized(network, record, config.init)
            train_network(network, record, config, data, resumed=saved is not None, teacher=teacher)
    return out


def _done(out: Path, config: TrainConfig, if_exists: IfExists) -> bool:
    """Tell whether a run to be resumed is finished; refuse one that is not whole or not the one asked for."""
    if if_exists != "resume" or not finished(out):
        return False
    prepare(out, config, if_exists)
    check_finished(out)
    return True


def train_network(
    network: nn.Module,
    record: ModelRecord,
    config: TrainConfig,
    data: DataSet,
    *,
    resumed: bool = False,
    teacher: Run | None = None,
    rates: Mapping[str, float] | None = None,
    callbacks: Sequence[Callback] = (),
    penalty: Callable[[], Tensor | None] | None = None,
    test_images: int | None = None,
    finish: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> None:
    """Train a network that is there already and write its run directory, ``config.run_dir``.

    Args:
        network: changed in place.
        record: what rebuilds the network that `finish` returns.
        config: how to train.
        data: to train on.
        resumed: go on from the last checkpoint.
        teacher: whose scores are targets too; None: labels alone.
        rates: parameters that learn at a rate of their own, by a part of their name.
        callbacks: of Lightning's loop.
        penalty: a term of the loss beside the answers, or None for this step.
        test_images: only the first so many are tested after each epoch.
        finish: turns the trained network into the one to keep.

    Raises:
        DataError: the network does not take the data, or the loss is not finite.
    """
    out, threads = config.run_dir, torch.get_num_threads()
    try:
        torch.set_num_threads(threads_here(config.threads) if config.threads else threads)
        keep_freed_memory()
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        data = record.fed(data)
        _check(network, config, data)
        config = _resolved(config, network, data)
        leader = None if teacher is None else teacher_of(teacher, data)
        if not resumed:
            clear(out)
            out.mkdir(parents=True, exist_ok=True)
            origin = {"commit": git_commit(), "version": _version(), **manifest.MARK, **_code(record)}
            record.copy_code(out)
            write_json(out / CONFIG, {**config.model_dump(mode="json"), **origin})
        module = _fit(
            network,
            config,
            data,
            resumed=resumed,
            teacher=leader,
            rates=rates,
            callbacks=callbacks,
            penalty=penalty,
            test_images=test_images,
        )
        _finish(module, finish(module.network.cpu().float()), config, data, record)
    finally:
        torch.set_num_threads(threads)


def _code(record: ModelRecord) -> dict[str, Any]:
    """What a configuration says of the files of a network, if there are any."""
    return {"code": record.code} if record.code else {}


def _check_code(out: Path, config: TrainConfig, record: ModelRecord) -> None:
    """Refuse to go on with a network from other files than a training began with."""
    begun = read_json(out / CONFIG)
    now = record.code.get(record.model.rpartition(":")[0])
    if begun.get("code", record.code) != record.code or begun.get("code_sha256", now) != now:
        raise DataError(
            f"{config.model} is not as it was when the training in {out} began; put back what was there, or "
            "start again with --overwrite"
        )


def _record(config: TrainConfig, data: DataSet) -> ModelRecord:
    """Return what rebuilds the network."""
    kwargs = arguments(
        config.model,
        config.model_args,
        num_classes=data.num_classes,
        in_channels=data.channels,
        image_size=data.image_size,
        width=None if config.width == 1 else config.width,
    )
    return ModelRecord.of(config.model, kwargs, data, source=config.source)


def _initialized(network: nn.Module, record: ModelRecord, run: Path) -> ModelRecord:
    """Give a network the weights of a run, and return its record: it is fed as the run's network was."""
    if not run.is_dir():
        raise DataError(f"init is {run}, no run directory; bitline import makes one of a model and its weights")
    manifest.check(run)
    load_weights(network, run / WEIGHTS)
    own = ModelRecord.read(run / RECORD)
    return record.model_copy(update={"mean": own.mean, "std": own.std})


def check_counts(data: DataSet, *, batch_size: int, epoch_images: int | None) -> None:
    """Refuse batches and epochs of more images than there are.

    Raises:
        DataError: there are not.
    """
    count = len(data.train_images)
    if epoch_images is not None and epoch_images > count:
        raise DataError(f"epoch_images is {epoch_images}; allowed: 1 to {count} training images")
    if batch_size > count:
        raise DataError(f"batch_size is {batch_size}; allowed: 1 to {count} training images")


def _check(network: nn.Module, config: TrainConfig, data: DataSet) -> None:
    """Refuse what would fail or mislead only later: too few images, a network of another input or output."""
    check_counts(data, batch_size=config.batch_size, epoch_images=config.epoch_images)
    images, _ = next(data.batches("test", batch_size=2))
    network.eval()
    try:
        with torch.no_grad():
            scores = network(images)
    except Exception as error:  # a user's own network may raise anything
        raise DataError(
            f"{config.model} does not take images {tuple(images.shape)}: {type(error).__name__}: {error}"
        ) from error
    network.train()
    if scores.shape != (len(images), data.num_classes):
        raise DataError(
            f"{config.model} answers {tuple(scores.shape)} to {len(images)} images of {data.title}; "
            f"expected {(len(images), data.num_classes)}"
        )


def _resolved(config: TrainConfig, network: nn.Module, data: DataSet) -> TrainConfig:
    """Replace each None that stands for a rule by the rule's value."""
    normalized = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())  # pyright: ignore[reportPrivateUsage]
    crop = data.image_size // 16 if config.crop is None else config.crop
    for name, px in (("crop", crop), ("cutout", config.cutout)):
        if px >= data.image_size:
            size = data.image_size
            raise DataError(f"{name} is {px}; allowed: 0 to {size - 1} px, for images of {size} px")
    return config.model_copy(
        update={
            "lr": config.lr or (0.001 if config.optimizer == "adam" else 0.1 if normalized else 0.02),
            "flip": data.channels == 3 if config.flip is None else config.flip,
            "crop": crop,
            "precision": config.precision or best_precision(torch_device(config.device)),
            "threads": config.threads or torch.get_num_threads(),
        }
    )


def _fit(
    network: nn.Module,
    config: TrainConfig,
    data: DataSet,
    *,
    resumed: bool,
    teacher: nn.Module | None,
    rates: Mapping[str, float] | None,
    callbacks: Sequence[Callback],
    penalty: Callable[[], Tensor | None] | None,
    test_images: int | None,
) -> Classifier:
    """Run Lightning's loop from the last checkpoint, or from the start."""
    out = config.run_dir
    assert config.flip is not None
    assert config.crop is not None
    batches = TrainBatches(
        data,
        batch_size=config.batch_size,
        seed=config.seed,
        flip=config.flip,
        pad=config.crop,
        hole=config.cutout,
        limit=config.epoch_images,
    )
    say = functools.partial(print, flush=True)  # one line an epoch
    bar = [ProgressLine()] if sys.stderr.isatty() else []
    steps = config.epochs * len(batches)
    module = Classifier(network, config, steps=steps, teacher=teacher, rates=rates, penalty=penalty, say=say)
    checkpoint = out / CHECKPOINT
    start = to_resume(out, module, digests=manifest.begun(out)) if resumed else None
    part = len(list((out / LOGS).glob("csv/part_*")))  # a resumed run writes its own table beside the earlier ones
    with _quiet():
        trainer = Trainer(
            accelerator="gpu" if torch_device(config.device).type == "cuda" else "cpu",
            devices=1,
            precision=config.precision,
            max_epochs=config.epochs,
            callbacks=[*callbacks, *bar, *_checkpoints(checkpoint, config.checkpoint_every)],
            plugins=[AtomicCheckpointIO()],
            logger=[
                CSVLogger(out / LOGS, name="csv", version=f"part_{part}"),
                TensorBoardLogger(out / LOGS, name="tensorboard", version=""),
            ],
            log_every_n_steps=max(1, min(50, len(batches))),
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if config.test_every else 0,
            check_val_every_n_epoch=max(1, config.test_every),
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(
                module,
                train_dataloaders=batches,
                val_dataloaders=TestBatches(data, batch_size=min(256, test_images or 256), limit=test_images),
                ckpt_path=None if start is None else str(start),
                weights_only=True,
            )
        except SystemExit as error:  # Lightning turns Ctrl-C into an exit and leaves the signal ignored
            signal.signal(signal.SIGINT, on_interrupt)
            stopped = error.__context__
            raise stopped if isinstance(stopped, KeyboardInterrupt) else KeyboardInterrupt from None
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            if start is None or module.begun:
                raise
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{start} does not fit the run {out}: {type(error).__name__}: {reason}") from error
    return module


def _checkpoints(path: Path, every: int | None) -> Iterator[Callback]:
    """Yield the callbacks that keep one checkpoint, the last."""
    fixed: dict[str, Any] = {
        "dirpath": path.parent,
        "filename": path.stem,
        "save_top_k": 1,
        "enable_version_counter": False,
    }
    yield ModelCheckpoint(every_n_epochs=1, save_on_train_epoch_end=True, **fixed)
    if every is not None:
        yield WithinEpoch(every_n_train_steps=every, save_on_train_epoch_end=False, **fixed)


def _finish(module: Classifier, network: nn.Module, config: TrainConfig, data: DataSet, record: ModelRecord) -> None:
    """Measure the network in fp32 and write the results; the manifest comes last and marks the run as finished."""
    out = config.run_dir
    network = network.eval().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    check_weights(network, f"{out}: the training ended without a network")
    write_network(out / WEIGHTS, network)
    record.write(out)
    correct = 0
    with torch.inference_mode():
        for images, labels in data.batches("test", batch_size=256):
            correct += int((network(images).argmax(1) == labels).sum())
    write_json(
        out / METRICS,
        {
            "data": data.title,
            "test_accuracy": correct / len(data.test_labels),
            "test_images": len(data.test_labels),
            "epochs": config.epochs,
            "seconds": round(module.seconds, 2),
            "cpu_seconds": round(module.cpu_seconds, 2),
            "parameters": sum(p.numel() for p in network.parameters()),
            "hardware": describe(),
            "curve": module.curve,
        },
    )
    manifest.write(out)


@contextmanager
def _quiet() -> Generator[None]:
    """Silence what Lightning says of its own habits: tips, device lists, advice on loaders."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated", module="lightning")
        warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
        warnings.filterwarnings("ignore", message=r"The dirpath has changed from .*")  # a run that was moved
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _version() -> str:
    from importlib.metadata import version

    return version("bitline")
