"""The networks in experiments/networks load as they were stored, and answer what they answered."""

import json
import struct
from pathlib import Path

import pytest
import torch

from bitline.models.files import load_run
from oracles.networks import CASES, NETWORKS, oracle

RUNS = sorted(path.parent for path in NETWORKS.glob("*/model.safetensors"))


def header(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each tensor, read by the published layout: a length of 8 bytes, then JSON."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        content = json.loads(file.read(size))
    content.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"]) for name, entry in content.items()}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_kept_network_has_the_tensors_that_its_file_lists(run):
    types = {torch.float32: "F32", torch.int64: "I64"}

    state = load_run(run).model.state_dict()

    assert {name: (types[tensor.dtype], list(tensor.shape)) for name, tensor in state.items()} == header(
        run / "model.safetensors"
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_kept_networks_on_chips_answer_what_they_answered(case):
    kept = oracle()

    for seed, logits in CASES[case].logits(kept["images"]).items():
        # Sums of floats outside crossbars may take another order on another processor.
        torch.testing.assert_close(logits, kept[f"{case}, {seed}"], rtol=1e-5, atol=1e-5)
