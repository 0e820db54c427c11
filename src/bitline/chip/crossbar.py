"""A grid of cells, and what drives its wordlines."""

from typing import Annotated, Any, Self, cast

from pydantic import Field, model_validator

from bitline.chip.records import Columns, Lines, Record


class Crossbar(Record):
    """A grid of cells; active_rows wordlines are driven at once (all of them unless said)."""

    rows: Lines
    cols: Columns
    active_rows: Lines
    segment_rows: Lines | None = None
    """wordlines that a bitline segment crosses; segments are joined by switches or read by themselves. Bitlines run
    through from end to end where absent"""

    @model_validator(mode="before")
    @classmethod
    def _all_rows_at_once(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "active_rows" in data:
            return cast("Any", data)
        keys = cast("dict[str, Any]", data)
        rows = keys.get("rows")
        # Where rows are impossible, that is the one thing to complain of.
        return {**keys, "active_rows": rows if isinstance(rows, int) and rows > 0 else 1}

    @model_validator(mode="after")
    def _no_more_active_than_there_are(self) -> Self:
        if self.active_rows > self.rows:
            raise ValueError(f"active_rows = {self.active_rows} exceeds rows = {self.rows}")
        if self.segment_rows is not None and self.segment_rows > self.rows:
            raise ValueError(f"segment_rows = {self.segment_rows} exceeds rows = {self.rows}")
        return self

    @property
    def whole(self) -> "Crossbar":
        """The same with its segments joined for good, which makes the same sums."""
        return self.model_copy(update={"segment_rows": None})

    @property
    def row_tiles(self) -> int:
        """Row tiles one crossbar holds, read one after the other."""
        return self.rows // self.active_rows


class Dac(Record):
    """Wordline driver: an input of many bits is streamed in digits of this width."""

    bits: Annotated[int, Field(strict=True, ge=1, le=8)] = 1
