"""Shapes of layers for other simulators, as one writes them by hand."""

import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.integer.layer_table import COLUMNS, neurosim_positions, rows, write_layers, write_workload
from bitline.integer.shapes import shapes
from bitline.integer.workload import einsums, problem
from bitline.nn import placement, to_crossbar


class Net(nn.Module):
    """Maps of 9 x 7, a depthwise and a dilated convolution, pooling by a function and a mean, and a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, (3, 2), stride=2, padding=1)  # 9 x 7 to 5 x 4
        self.deep = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.wide = nn.Conv2d(4, 6, 2, dilation=2)  # 2 x 2 after the pool to nothing: see forward
        self.shared = nn.Linear(6, 6)
        self.last = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.deep(F.relu(self.first(x))))
        x = F.max_pool2d(F.pad(x, (0, 0, 0, 1)), 2)  # 6 x 4 to 3 x 2
        x = self.wide(F.pad(x, (0, 1)))  # 3 x 3 to 1 x 1
        x = x.mean((2, 3))
        return self.last(self.shared(self.shared(x)))


X = torch.rand(2, 3, 9, 7)


@pytest.fixture
def model(make_chip) -> nn.Module:
    torch.manual_seed(0)
    return to_crossbar(Net(), make_chip(), example=X).model


def test_rows_are_those_that_one_writes_by_hand(model, tmp_path):
    written = write_layers(model, X, tmp_path)
    deep = "5,4,1,3,3,1,1,1\n"
    assert (tmp_path / "layers.csv").read_text() == (
        "9,7,3,3,2,4,0,2\n"
        + 4 * deep
        + "1,1,16,1,1,6,1,1\n"  # 2 x 2 kernels of 4 channels
        + "2,1,6,1,1,6,0,1\n"
        + "1,1,6,1,1,5,0,1\n"
    )
    assert len(written["columns"]) == len(COLUMNS) == 8
    assert [row["layer"] for row in written["rows"]] == ["first", *4 * ["deep"], "wide", "shared", "last"]
    assert [row["positions"] for row in written["rows"]] == [20, 20, 20, 20, 20, 1, 2, 1]
    assert {row["layer"]: row["told_as_product"] for row in written["rows"] if row["told_as_product"]} == {
        "wide": "the table knows no dilation"
    }
    # ((9 - 3 + 1) // 2 * (7 - 2 + 1)) // 2, without padding; ((5 - 3 + 1) * (4 - 3 + 1)
    assert [row["neurosim_positions"] for row in written["rows"]] == [9, 6, 6, 6, 6, 1, 2, 1]


def test_multiplications_are_those_of_the_placement(model):
    placed = {part.matmul.name: part.matmul.macs for part in placement(model).layers}
    found = {layer.name: layer.macs for layer in shapes(model, X)}
    assert found == placed
    assert found == {"first": 20 * 18 * 4, "deep": 20 * 9 * 4, "wide": 16 * 6, "shared": 2 * 36, "last": 30}


def test_the_published_table_of_resnet18_comes_out(make_chip):
    """Sizes of DNN+NeuroSim's NetWork_ResNet18.csv."""

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.a = nn.Conv2d(inputs, outputs, 3, stride, 1)
            self.b = nn.Conv2d(outputs, outputs, 3, 1, 1)
            self.down = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y = self.b(self.a(x))
            return y + self.down(x)

    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for outputs in (64, 128, 256, 512):
        layers += [Block(inputs, outputs, 1 if inputs == outputs else 2), Block(outputs, outputs, 1)]
        inputs = outputs
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    x = torch.zeros(1, 3, 224, 224)
    table = [numbers for _, numbers in rows(shapes(to_crossbar(net, make_chip(), example=x).model, x))]
    expected = [(224, 224, 3, 7, 7, 64, 1, 2), *4 * [(56, 56, 64, 3, 3, 64, 0, 1)]]
    for inputs, size in ((64, 56), (128, 28), (256, 14)):
        half, outputs = size // 2, 2 * inputs
        expected += [
            (size, size, inputs, 3, 3, outputs, 0, 2),
            (half, half, outputs, 3, 3, outputs, 0, 1),
            (size, size, inputs, 1, 1, outputs, 0, 2),
            *2 * [(half, half, outputs, 3, 3, outputs, 0, 1)],
        ]
    expected[-1] = (7, 7, 512, 3, 3, 512, 1, 1)
    assert table == [*expected, (1, 1, 512, 1, 1, 1000, 0, 1)]
    assert neurosim_positions(table[1]) == 54 * 54


def test_problems_of_timeloop_have_the_sizes_of_a_layer(model):
    first = shapes(model, X)[0]
    text = problem(first)
    instance = dict(line.split(": ") for line in text.partition("  instance:\n")[2].replace("    ", "").splitlines())
    assert {key: int(value) for key, value in instance.items()} == {
        **dict(zip("NGCMPQRS", (1, 1, 3, 4, 4, 5, 2, 3), strict=True)),
        "Wstride": 2,
        "Hstride": 2,
        "Wdilation": 1,
        "Hdilation": 1,
    }


def test_einsums_of_accelforge_read_what_strides_and_dilation_say(model, make_chip, tmp_path):
    layers = shapes(model, X)
    text = einsums(layers, 8, 4)
    assert "    P0: 4\n    Q0: 5\n    R0: 2\n    S0: 3\n" in text
    assert "projection: {N0: n0, G0: g0, C0: c0, W0: 2 * p0 + r0, H0: 2 * q0 + s0}\n      bits_per_value: 8" in text
    assert "projection: {N2: n2, G2: g2, C2: c2, W2: p2 + 2 * r2, H2: q2 + 2 * s2}" in text
    assert "projection: [g1, c1, m1, r1, s1]\n      bits_per_value: 4" in text
    written = write_workload(model, X, make_chip(), tmp_path)
    assert [layer["layer"] for layer in written["layers"]] == ["first", "deep", "wide", "shared", "last"]
    assert all((tmp_path / layer["file"]).is_file() for layer in written["layers"])
    json.dumps(written)


def test_a_signal_is_a_map_one_pixel_wide(make_chip):
    net = nn.Sequential(nn.Conv1d(2, 3, 5, stride=2, padding=2), nn.ReLU(), nn.Conv1d(3, 4, 1))
    x = torch.rand(1, 2, 16)
    found = shapes(to_crossbar(net, make_chip(), example=x).model, x)
    assert [(s.size, s.kernel, s.stride, s.positions) for s in found] == [
        ((16, 1), (5, 1), (2, 1), (8, 1)),
        ((8, 1), (1, 1), (1, 1), (8, 1)),
    ]
    assert [numbers for _, numbers in rows(found)] == [(8, 1, 10, 1, 1, 3, 0, 1), (8, 1, 3, 1, 1, 4, 0, 1)]
