"""What ``bitline export --to layers|workload`` writes, and what it says of what is not in it."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bitline.evaluation.on_chip import OnChip, on_device
from bitline.integer.layer_table import write_layers, write_workload
from bitline.nn import placement

log = logging.getLogger(__name__)


def write(on_chip: OnChip, folder: Path, to: str) -> dict[str, Any]:
    """Write the shapes of the layers on crossbars, and return what belongs in the manifest.

    Args:
        on_chip: converted; calibrated or not.
        folder: made if need be.
        to: ``"layers"`` or ``"workload"``.

    Raises:
        ExportError: a file cannot be written.
    """
    model, chip = on_chip.model, placement(on_chip.model).chip
    example = on_device(on_chip.task.first(2), model)
    if to == "layers":
        written = write_layers(model, example, folder)
        listed = written["rows"]
    else:
        written = write_workload(model, example, chip, folder)
        listed = written["layers"]
    digital = [asdict(each) for each in on_chip.report.digital]
    if macs := sum(each["macs"] for each in digital):
        log.warning("%s multiplications of an image are digital and not in the file; the manifest lists them", macs)
    if told := {each["layer"]: why for each in listed if (why := each["told_as_product"])}:
        reasons = "; ".join(f"{name}: {why}" for name, why in told.items())
        log.warning("told as 1 x 1 convolutions that are the same product: %s", reasons)
    return {**written, "chip": chip.model_dump(mode="json"), "digital": digital}
