"""Which layer becomes what: every layer the same, or each as it was chosen."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.compress import Report, Rewritten
from bitline.errors import DataError, nearest
from bitline.mapping.lower import Matmul
from bitline.network.trace import matmuls
from bitline.recipes import group, separable
from bitline.recipes.config import RecipeConfig

CHOICES = ("dense", "separable:1", "separable:2", "group:1", "group:2", "group:1+mix")
"""of one layer; the number is that of maps for each output channel, or of the row tiles a group may need"""


def restructure(
    model: nn.Module,
    batches: Sequence[Tensor],
    chip: Chip,
    config: RecipeConfig,
    layers: Mapping[str, str] | None = None,
) -> Rewritten:
    """Give every layer its structure, with weights fitted to what the dense one answers.

    Args:
        model: trained; it is not changed.
        batches: some training images, normalized.
        chip: whose wordlines groups must fit.
        config: of the recipe.
        layers: layer name -> one of `CHOICES`; layers not named stay as they are. None: all as the recipe says.

    Raises:
        DataError: an unknown layer or choice.
    """
    if layers is None:
        recipe = group if config.structure == "group" else separable
        return recipe.restructure(model, batches, chip, config)
    shape = batches[0].shape[1:]
    check_layers(matmuls(model, shape), layers)
    found = Rewritten(model, (), Report())
    wanted = sorted((choice, name) for name, choice in layers.items() if choice != "dense")
    for choice, pairs in groupby(wanted, key=lambda pair: pair[0]):
        mine = {name for _, name in pairs}
        leave = [m.name for m in matmuls(found.model, shape) if m.name not in mine]
        kind, _, option = choice.partition(":")
        number = int(option.removesuffix("+mix"))
        if kind == "separable":
            settings = config.model_copy(update={"multiplier": number})
            step = separable.restructure(found.model, batches, chip, settings, leave=leave)
        else:
            settings = config.model_copy(update={"row_tiles": number, "mix": option.endswith("+mix")})
            step = group.restructure(found.model, batches, chip, settings, leave=leave)
        left = (layer for layer in step.report.left if layer.name in mine)
        report = Report((*found.report.layers, *step.report.layers), (*found.report.left, *left))
        found = Rewritten(step.model, (*found.rewrites, *step.rewrites), report)
    return found


def check_layers(known: Sequence[Matmul], layers: Mapping[str, str]) -> None:
    """Refuse what no layer is called and what no layer can become.

    Raises:
        DataError: an unknown layer or choice.
    """
    names = [m.name for m in known]
    for name, choice in layers.items():
        if name not in names:
            raise DataError(f"no layer {name!r}{nearest(name, names)}; layers: {', '.join(names)}")
        if choice not in CHOICES:
            raise DataError(f"layer {name} = {choice!r}{nearest(choice, CHOICES)}; allowed: {', '.join(CHOICES)}")
