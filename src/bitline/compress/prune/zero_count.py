"""How many units of a network are zero after the least important ones were made zero."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ZeroCount:
    """Units of a network, kernels or crossbars, that are zero now, and that are not.

    Args:
        unit: ``"kernels"`` or ``"crossbars"``.
        left: layer name -> units that are not zero.
        of: layer name -> units that compete with others.
        candidates: units that the ratio asked for; rounding makes more or fewer of them zero.
    """

    unit: str
    left: dict[str, int]
    of: dict[str, int]
    candidates: int

    @property
    def total(self) -> int:
        """Units that compete."""
        return sum(self.of.values())

    @property
    def zeros(self) -> int:
        """Units that are zero."""
        return self.total - sum(self.left.values())

    @property
    def ratio(self) -> float:
        """Share of the units that are zero."""
        return self.zeros / max(1, self.total)

    def __str__(self) -> str:
        lines = [f"{name}: {self.left[name]} of {of} {self.unit} left" for name, of in self.of.items()]
        return "\n".join([*lines, f"{self.zeros} of {self.total} {self.unit} are zero ({self.ratio:.1%})"])
