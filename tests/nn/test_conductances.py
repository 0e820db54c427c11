"""What is written into crossbars is what they multiply by."""

import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from bitline.chip import Chip
from bitline.chip.variants import ideal
from bitline.integer.conductances import blocks, write
from bitline.mvm.effective import effective_weights
from bitline.nn import calibrate, on, to_crossbar


@pytest.mark.parametrize("encoding", ["offset", {"kind": "offset", "sum": "column"}, "pair", "twos_complement"])
def test_levels_of_a_block_are_the_weights_in_cells(make_chip, encoding):
    torch.manual_seed(0)
    chip = make_chip(weights={"encoding": encoding})
    model = to_crossbar(nn.Sequential(nn.Linear(11, 9)), chip).model
    q = model[0].integer_weights()[0].long()
    whole = torch.zeros_like(q)
    for block in blocks(model[0]):
        rows, cells = block.levels.shape
        assert rows <= chip.crossbar.rows
        assert cells <= chip.crossbar.cols
        assert torch.equal(block.conductances, (1e-6 + block.levels.double() * 33e-6).float())
        weights = block.levels.long().view(rows, -1, chip.sides, chip.slices)
        digits = torch.tensor([1, 4, 16][: chip.slices])
        if encoding == "twos_complement":
            digits = torch.tensor([1, 4, -8])
        values = (weights * digits).sum(-1)
        values = values[..., 0] - values[..., 1] if chip.sides == 2 else values[..., 0]
        values = values[:, :-1] - values[:, -1:] if chip.reference_columns else values - chip.weights.zero_point
        top, left = chip.crossbar.active_rows * block.row_tile, chip.weight_columns * block.column_tile
        bounds = model[0].placement
        top, left = bounds.row_bounds[block.row_tile], bounds.col_bounds[block.column_tile]
        whole[top : top + rows, left : left + values.shape[1]] = values
    assert torch.equal(whole, q)


def test_a_programmed_chip_has_the_conductances_of_its_seed_and_removed_crossbars_none(make_chip, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 3))
    with torch.no_grad():
        net[0].weight[:, 8:] = 0  # the second row tile
    chip = make_chip(cell={"programming": {"kind": "lognormal", "sigma": 0.2}, "faults": {"stuck_off": 0.1}})
    model = to_crossbar(net, chip).model
    calibrate(model, [torch.rand(4, 16)])
    first = write(model, tmp_path / "a", 3)
    again, other = write(model, tmp_path / "b", 3), write(model, tmp_path / "c", 4)
    targets = write(model, tmp_path / "d")
    assert [b["sha256"] for b in first["crossbars"]] == [b["sha256"] for b in again["crossbars"]]
    assert not {b["sha256"] for b in first["crossbars"]} & {b["sha256"] for b in other["crossbars"]}
    assert {(b["layer"], b["row_tile"]) for b in first["crossbars"]} == {("0", 0), ("1", 0)}
    for entry, target in zip(first["crossbars"], targets["crossbars"], strict=True):
        tensors = load_file(tmp_path / "a" / entry["file"])
        levels, g = tensors[f"{entry['key']}.levels"], tensors[f"{entry['key']}.conductances"]
        parts = ("levels", "conductances", "kernels", "flipped")
        content = b"".join(tensors[f"{entry['key']}.{part}"].numpy().tobytes() for part in parts)
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert (levels.dtype, g.dtype, tuple(g.shape)) == (
            torch.uint8,
            torch.float32,
            (entry["rows"], entry["columns"]),
        )
        wanted = load_file(tmp_path / "d" / target["file"])[f"{target['key']}.conductances"]
        assert not torch.equal(g, wanted)
        assert float((g / wanted).log().median().abs()) < 0.2


@pytest.mark.parametrize("written", ["nearest", "readback"])
@pytest.mark.parametrize("encoding", ["offset", "pair"])
def test_crossbars_that_avoid_stuck_cells_are_written_as_they_lie_on_the_chip(make_chip, encoding, written):
    torch.manual_seed(0)
    chip = make_chip(
        weights={"encoding": encoding},
        cell={"faults": {"stuck_off": 0.1, "stuck_on": 0.05}},
        mitigation={"remap": True, "flip": True, written: True, "rewrites": 2 * (written == "readback")},
    )
    model = to_crossbar(nn.Sequential(nn.Linear(11, 9)), chip).model
    layer = model[0]
    factors = torch.tensor([1.0, 4.0, 16.0][: chip.slices], dtype=torch.float64)
    highest = 3 * float(factors.sum()) - 2 * chip.weights.zero_point
    found = torch.zeros(11, 9, dtype=torch.float64)
    moved = turned = 0
    for block in blocks(layer, seed=3):
        levels = (block.conductances.double() - chip.cell.g_min) / chip.cell.step
        sides = levels.view(len(levels), -1, chip.sides, chip.slices) @ factors
        values = sides[..., 0] - (sides[..., 1] if chip.sides == 2 else chip.weights.zero_point)
        values = torch.where(block.flipped, (-values if chip.sides == 2 else highest - values), values)
        top = layer.placement.row_bounds[block.row_tile]
        found[top : top + len(values), block.kernels] = values
        columns = torch.arange(*layer.placement.col_bounds[block.column_tile : block.column_tile + 2])
        moved += int((block.kernels != columns).sum())
        turned += int(block.flipped.sum())

    assert moved > 0
    assert turned > 0
    torch.testing.assert_close(found, effective_weights(layer.crossbars(chip, 3))[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_file_alone_says_what_its_layer_answers(make_chip, tmp_path, granularity):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 5))
    model = to_crossbar(net, make_chip(weights={"granularity": granularity}, adc={"policy": "calibrated"})).model
    x = torch.rand(4, 9)
    calibrate(model, [x])
    entry = write(model, tmp_path, 3)["crossbars"][0]
    with safe_open(tmp_path / entry["file"], "pt") as file:
        about = {key: json.loads(value) for key, value in file.metadata().items() if key not in ("format", "layer")}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    chip = Chip.model_validate(about["chip"])
    assert chip == model[0].chip
    assert (about["seed"], about["strategy"]) == (3, "dense")
    assert about["product"] == {"kind": "linear", "rows": 9, "cols": 5, "groups": 1}
    q = torch.zeros(9, 5)
    placed = model[0].placement
    for key in {name.rpartition(".")[0] for name in tensors if name.endswith(".levels")}:
        _, row, column = map(int, key.split("."))
        cells = tensors[f"{key}.levels"].double()
        digits = (
            cells.view(len(cells), -1, chip.slices) @ (2.0 ** (chip.cell.bits * torch.arange(chip.slices))).double()
        )
        rows, columns = placed.row_bounds[row : row + 2], placed.col_bounds[column : column + 2]
        q[rows[0] : rows[1], columns[0] : columns[1]] = digits.float() - chip.weights.zero_point
    inputs = (x / about["input"]["scale"]).round().clamp(0, 2**chip.inputs.bits - 1)
    answer = (inputs @ q) * about["input"]["scale"] * tensors["weight_scale"][0] + tensors["bias"]
    with on(model, ideal(chip)):
        assert torch.allclose(answer.float(), model(x), atol=1e-5)
    assert torch.equal(tensors["adc_lsb"], model[0].ranges.adc_lsb)
    assert torch.equal(tensors["adc_offset"], model[0].ranges.adc_offset)
