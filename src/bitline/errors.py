"""Every error a user of bitline can meet; each names the value given and those allowed."""

import difflib
from collections.abc import Iterable


class BitlineError(Exception):
    """Base of all errors raised on purpose."""


class ChipError(BitlineError):
    """A chip description that no chip can have, or that cannot be read."""


class MappingError(BitlineError):
    """A matrix that does not fit the crossbars it is to be placed on."""


class ConversionError(BitlineError):
    """A network that cannot be put on a chip as asked."""


class DataError(BitlineError):
    """Data that is missing, truncated or of another kind than expected."""


class ExportError(BitlineError):
    """A result that cannot be written in the format asked for."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the allowed word nearest to `word`, or an empty string."""
    match = difflib.get_close_matches(word[:100], list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""


def shown(value: object, most: int = 80) -> str:
    """Write a value for a message: on one line, cut where it is long; a number of too many digits by its size."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"a number of about {round(value.bit_length() * 0.30103)} digits"
    if isinstance(value, str):
        value = value[: most + 1]
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or with a number of too many digits within
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}..."
