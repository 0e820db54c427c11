"""What changing a network gives: the network, its rewrites as data, and how each layer changed, or why it did not."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import nn

from bitline.models.rewrite import Rewrite


@dataclass(frozen=True)
class LayerReport:
    """One layer that was rewritten.

    Args:
        name: of the layer in its network.
        kind: of the rewrite.
        rows: of the dense layer's matrix.
        tiles_before: row tiles of the dense layer.
        tiles_after: row tiles of each product that replaces it; the most where there are several.
        groups: of the layer that replaces it, 1 where it has none.
        mix: groups of the 1x1 convolution behind it, 0 where there is none.
        kept: share of the importance inside of groups, for each assignment; of a separable, the share of the weighted
            kernels that its start keeps.
        error_before: mean square difference to the dense network's output as first set, relative to that output's
            variance; inputs are those the rewritten network gives.
        error_after: as error_before, with weights refitted; None where they were not.
    """

    name: str
    kind: str
    rows: int
    tiles_before: int
    tiles_after: int
    groups: int
    mix: int
    kept: dict[str, float]
    error_before: float
    error_after: float | None

    def __str__(self) -> str:
        parts = f"{self.groups} groups, " if self.groups > 1 else ""
        parts += f"mixed in {self.mix}, " if self.mix else ""
        kept = ", ".join(f"{kind} {share:.1%}" for kind, share in self.kept.items())
        error = f"{self.error_before:.3f}" + (f" -> {self.error_after:.3f}" if self.error_after is not None else "")
        return (
            f"{self.name}: {self.kind}, {parts}{self.rows} rows, row tiles {self.tiles_before} -> {self.tiles_after}, "
            f"kept {kept}, error {error}"
        )


@dataclass(frozen=True)
class UnchangedLayer:
    """A layer that stays as it was, or kernels of it: one that needs partial sums, a batch norm that was not folded.

    Args:
        name: of the layer.
        why: the reason.
    """

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: left, {self.why}"


@dataclass(frozen=True)
class ShrunkLayer:
    """One layer with fewer channels.

    Args:
        name: of the layer in its network.
        rows: of its matrix, before and after; of one group where there are several.
        cols: as rows.
        groups: of the layer, before and after.
        crossbars: that hold weights other than zero, before and after.
    """

    name: str
    rows: tuple[int, int]
    cols: tuple[int, int]
    groups: tuple[int, int]
    crossbars: tuple[int, int]

    def __str__(self) -> str:
        sizes = [
            f"{rows} x {cols}" + (f" x {groups} groups" if groups > 1 else "")
            for rows, cols, groups in zip(self.rows, self.cols, self.groups, strict=True)
        ]
        return f"{self.name}: shrunk, {' -> '.join(sizes)}, crossbars {self.crossbars[0]} -> {self.crossbars[1]}"


@dataclass(frozen=True)
class Report:
    """Every layer that was looked at: how it changed, or why it did not.

    Args:
        layers: rewritten, in the order they run.
        unchanged: those that stay as they were, and why.
        folded: batch norm -> the layer it went into.
        shrunk: layers with fewer channels than before, in the order they run.
    """

    layers: tuple[LayerReport, ...] = ()
    unchanged: tuple[UnchangedLayer, ...] = ()
    folded: dict[str, str] = field(default_factory=dict[str, str])
    shrunk: tuple[ShrunkLayer, ...] = ()

    def __str__(self) -> str:
        lines = [*map(str, self.layers), *(f"{norm}: folded into {layer}" for norm, layer in self.folded.items())]
        return "\n".join([*lines, *map(str, self.shrunk), *map(str, self.unchanged)])


class RewriteResult(NamedTuple):
    """A network in its new structure.

    Args:
        model: in evaluation mode.
        rewrites: what `bitline.models.rewrite.apply` needs to make its structure from that of the network given.
        report: how each layer changed, or why it did not.
    """

    model: nn.Module
    rewrites: tuple[Rewrite, ...]
    report: Report
