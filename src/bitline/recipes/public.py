"""A recipe in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bitline.recipes.records.base import Recipe

RecipeName = Literal["conventional", "quantization-aware", "psum-aware", "group", "separable", "mixed", "auto", "crimp"]


def optimize(
    recipe: RecipeName | Recipe,
    run: Path | str | None = None,
    *,
    chip: str = "rram-22nm",
    overrides: Sequence[str] = (),
    mapping: Mapping[str, str] | None = None,
    out: Path | str | None = None,
    if_exists: Literal["refuse", "resume", "overwrite"] = "refuse",
    say: Callable[[str], None] | None = None,
    progress: bool = False,
    trust_code: bool = False,
    **options: Any,
) -> Path:
    """Change a trained network until it suits a chip: ``bitline optimize RECIPE RUN`` in Python.

        folder = bitline.optimize("psum-aware", "runs/vgg8-cifar10", overrides=["adc.bits=4"], chip_epochs=2)
        print(bitline.evaluation.load(folder / "evaluation.json"))

    Args:
        recipe: its name; or a record of `bitline.recipes.RECORDS`, which says all but the arguments from `if_exists`
            on.
        run: run directory of the trained network, of ``bitline train`` or ``bitline import``.
        chip: a preset or a TOML file.
        overrides: KEY=VALUE of any chip key.
        mapping: how layers of several groups are laid out.
        out: run directory of the result; default: runs/RECIPE-NAME.
        if_exists: a run directory that is already there is refused, resumed, or overwritten.
        say: told what begins and what came of it.
        progress: show bars.
        trust_code: run the Python file that the run directory names.
        options: of the recipe, as ``bitline optimize RECIPE --help`` lists them, with underscores.

    Returns:
        The run directory of the result: the network, its chip, and evaluations before and after.

    Raises:
        DataError: an unknown recipe or option, a value that is not allowed, or a run that cannot be used.
        ChipError: no such chip.
        ConversionError: the network does not fit the recipe.
        ExtraError: what trains is not installed.
    """
    from bitline.errors import DataError
    from bitline.extras import need
    from bitline.recipes.records.base import Recipe
    from bitline.recipes.records.union import checked

    need("bitline.optimize", "train")
    from bitline.recipes.run import optimize as work  # with all that trains

    if isinstance(recipe, Recipe):
        if run is not None or options:
            raise DataError("a recipe's record says which run and which options: leave them out")
        config = recipe
    else:
        given = {"run": run, "out": out, "mapping": None if mapping is None else dict(mapping)}
        said = {key: value for key, value in given.items() if value is not None}
        config = checked(recipe=recipe, chip=chip, overrides=tuple(overrides), **said, **options)
    return work(config, if_exists=if_exists, say=say or (lambda _: None), progress=progress, trust_code=trust_code)
