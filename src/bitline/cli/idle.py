"""Options that would do nothing are refused, rather than ignored."""

from collections.abc import Collection, Mapping
from typing import Any

import typer

from bitline.cli.options import on_command_line
from bitline.errors import DataError
from bitline.recipes.records.base import Recipe


def refuse_idle(ctx: typer.Context, idle: Mapping[str, str | None]) -> None:
    """Refuse options that the command line gives though they would do nothing.

    Args:
        ctx: of the command.
        idle: for an option, for example ``--cause-chips``, why it would do nothing; None where it does something.

    Raises:
        DataError: names the option, its value and the reason.
    """
    given = on_command_line(ctx, ctx.params)
    for option, why in idle.items():
        key = option.removeprefix("--").replace("-", "_")
        if why is not None and key in given:
            value = given[key]
            raise DataError(f"{option}{'' if value is True else f' {value}'} does nothing here: {why}")


def refuse_idle_in_recipe(config: Recipe, given: Collection[str]) -> None:
    """Refuse options of a recipe that were given though they would do nothing in it.

    Args:
        config: of the recipe.
        given: options of the command line and of a file of settings.

    Raises:
        DataError: names the option, its value and the reason.
    """
    for keys, why in _idle(config):
        for key in keys:
            if key in given:
                raise DataError(f"{key} is {getattr(config, key)!r}, which does nothing here: {why}")


def _idle(config: Recipe) -> list[tuple[tuple[str, ...], str]]:
    """List options and why they would do nothing."""
    told: Any = config  # options that only some recipes have
    name, on_chip, floating = config.name(), config.epochs_on_chip, bool(config.epochs)
    has = type(config).model_fields
    idle: list[tuple[tuple[str, ...], str]] = []
    if not floating:
        no_float = "epochs is 0, so nothing is trained in floating point"
        idle.append((("schedule", "momentum", "weight_decay"), no_float))
        if not (name == "auto" and told.proxy_steps):
            idle.append((("lr",), no_float))
        if not on_chip and name != "auto" and getattr(told, "simulation", "exact") not in ("linear", "surrogate"):
            idle.append((("precision",), "no epoch is trained"))
    if not floating and not on_chip and not getattr(config, "settle_epochs", 0) and name != "auto":
        unused = ("epoch_images", "batch_size", "teacher", "distill", "temperature", "checkpoint_every")
        idle.append((unused, "no epoch is trained"))
    if "aware" in has and told.aware == "none":
        idle.append((("chip_epochs",), "aware is 'none', so nothing is trained on the chip"))
    if "chip_epochs" in has and not on_chip:
        of_chip = ("chip_lr", "range_lr", "granularity", "tiles_a_step")
        also = () if name == "crimp" else ("reprogram_every", "test_images")
        idle.append(((*of_chip, *also), "nothing is trained on the chip"))
    if "aware" in has and told.aware == "quantization" and name != "crimp":
        of_adcs = ("range_lr", "granularity", "reprogram_every", "tiles_a_step")
        idle.append((of_adcs, "aware is 'quantization', which has no ADC"))
    surrogate = name != "crimp" and getattr(told, "simulation", "exact") == "surrogate"
    if "exact_epochs" in has and not surrogate:
        idle.append((("exact_epochs",), "simulation is 'exact', so all epochs on the chip are"))
    if surrogate and on_chip and not told.epochs_exact:
        idle.append((("range_lr", "tiles_a_step"), "exact_epochs is 0, and the surrogate trains no ADC steps"))
    if surrogate and name != "auto" and (not on_chip or told.aware == "quantization"):
        why = "nothing is trained on the chip" if not on_chip else "aware is 'quantization', which has no ADC"
        idle.append((("simulation", "exact_epochs"), why))
    if name == "auto" and told.front > told.trials:
        idle.append((("front",), f"there are only {told.trials} trials"))
    if config.chips_before is not None and config.chips_before > config.chips:
        idle.append((("chips_before",), f"there are only {config.chips} chips"))
    if name == "crimp":
        idle += _idle_in_crimp(told)
    return idle


def _idle_in_crimp(told: Any) -> list[tuple[tuple[str, ...], str]]:
    idle: list[tuple[tuple[str, ...], str]] = []
    if not told.phases:
        pruning = ("sparsity", "kernel_share", "rank", "l1", "zero_start", "zero_interval", "zerorize")
        idle.append((pruning, "kernel_groups and crossbar_blocks are both off, so nothing is pruned"))
    elif told.phases == 1:
        idle.append((("kernel_share",), "there is only one phase"))
    if not told.zerorize:
        idle.append((("zero_start", "zero_interval"), "zerorize is off"))
    if not told.error_compensation:
        idle.append((("readback",), "error_compensation is off"))
    return idle
