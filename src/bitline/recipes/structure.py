"""Which layer becomes what: every layer the same, or each as it was chosen."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.compress import Report, RewriteResult
from bitline.errors import DataError, nearest
from bitline.mapping.lower import Matmul
from bitline.network.trace import matmuls
from bitline.recipes import group, separable
from bitline.recipes.records.group import Group
from bitline.recipes.records.mixed import CHOICES, Mixed
from bitline.recipes.records.separable import Separable
from bitline.recipes.records.structure import NewStructure
from bitline.recipes.records.union import convert


def restructure(
    model: nn.Module,
    batches: Sequence[Tensor],
    chip: Chip,
    config: NewStructure,
    layers: Mapping[str, str] | None = None,
) -> RewriteResult:
    """Give every layer its structure, with weights fitted to what the dense one answers.

    Args:
        model: trained; it is not changed.
        batches: some training images, normalized.
        chip: whose wordlines groups must fit.
        config: of the recipe.
        layers: layer name -> one of `CHOICES`, of a recipe that has none itself; layers not named stay as they are.

    Raises:
        DataError: an unknown layer or choice.
    """
    match config:
        case Group():
            return group.restructure(model, batches, chip, config)
        case Separable():
            return separable.restructure(model, batches, chip, config)
        case _:
            layers = config.layers if isinstance(config, Mixed) else layers or {}
    shape = batches[0].shape[1:]
    check_layers(matmuls(model, shape), layers)
    result = RewriteResult(model, (), Report())
    wanted = sorted((choice, name) for name, choice in layers.items() if choice != "dense")
    for choice, pairs in groupby(wanted, key=lambda pair: pair[0]):
        mine = {name for _, name in pairs}
        leave = [m.name for m in matmuls(result.model, shape) if m.name not in mine]
        kind, _, option = choice.partition(":")
        number = int(option.removesuffix("+mix"))
        if kind == "separable":
            as_separable = convert(config, Separable, multiplier=number)
            step = separable.restructure(result.model, batches, chip, as_separable, leave=leave)
        else:
            as_group = convert(config, Group, row_tiles=number, mix=option.endswith("+mix"))
            step = group.restructure(result.model, batches, chip, as_group, leave=leave)
        left = (layer for layer in step.report.unchanged if layer.name in mine)
        report = Report((*result.report.layers, *step.report.layers), (*result.report.unchanged, *left))
        result = RewriteResult(step.model, (*result.rewrites, *step.rewrites), report)
    return result


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
