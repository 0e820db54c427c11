"""The machine that an evaluation ran on."""

import platform
from importlib.metadata import version
from typing import Annotated, Self

from pydantic import Field

from bitline.chip.records import Record


class Environment(Record):
    """What computed the accuracies. All paths answer alike; what stays in floats may differ in its last bits."""

    path: str
    """of products on the CPU, see `bitline doctor`"""
    processor: str
    cpu_flags: tuple[str, ...]
    """instruction sets that paths ask for, of those that the processor has"""
    threads: Annotated[int, Field(ge=1)]
    gpu: str | None
    versions: dict[str, str]
    """of Python and of the packages that compute"""

    @classmethod
    def here(cls) -> Self:
        """Return that of this process."""
        from bitline.mvm.machine import machine  # reports read this record without torch

        place = machine()
        return cls(
            path=place.choice.path or "",
            processor=place.processor,
            cpu_flags=tuple(name for name, has in (place.features or {}).items() if has),
            threads=place.threads,
            gpu=place.gpu,
            versions={
                "python": platform.python_version(),
                **{name: version(name) for name in ("bitline", "torch", "numpy")},
            },
        )
