"""Programs of torch.export: read without unpickling, with the layers that crossbars can hold as modules again."""

import io
import json
import warnings
import zipfile
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from own_networks import Net
from torch import nn

from bitline import to_crossbar
from bitline.errors import DataError
from bitline.models.program import load_program
from bitline.models.program.operators import function

MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


def save(network: nn.Module, path: Path, *shape: int, fixed: bool = False, core: bool = False) -> Path:
    """Export a network and save the program."""
    sizes = None if fixed else ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, (torch.randn(2, *shape),), dynamic_shapes=sizes)
        torch.export.save(program.run_decompositions() if core else program, path)
    return path


def own() -> nn.Module:
    """The network, with statistics that no batch norm begins with."""
    torch.manual_seed(0)
    network = Net()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return network.eval()


class Odd(nn.Module):
    """Padding by name, operations in place, a constant, chunks, a layer that runs twice, and one of other sharing."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding="same"), nn.BatchNorm2d(8, affine=False)
        self.relu, self.act = nn.ReLU(inplace=True), nn.Hardswish(inplace=True)
        self.twice = nn.Conv2d(8, 8, 1)
        self.line, self.line_norm = nn.Conv1d(8, 8, 3, padding=1, bias=False), nn.BatchNorm1d(8)
        self.group_norm, self.drop, self.head = nn.GroupNorm(2, 8), nn.Dropout(0.5), nn.Linear(128, 10)
        self.register_buffer("mean", torch.tensor([0.5]).view(1, -1, 1, 1))
        self.scale = torch.ones(1) * 2
        self.own = nn.Module()
        self.own.weight, self.own.gain = nn.Parameter(torch.randn(8, 8, 1, 1)), nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = self.relu(self.norm(self.conv((x - self.mean) / self.scale)))
        x = F.max_pool2d(self.twice(self.act(self.twice(x))), 2)
        x = F.conv2d(x, self.own.weight) * self.own.gain + F.conv2d(x, self.own.weight, padding=1)[:, :, 1:-1, 1:-1]
        one, other = self.group_norm(x).chunk(2, 1)
        x = F.gelu(torch.cat([other, one], 1), approximate="tanh")
        y = self.line_norm(self.line(x.flatten(2))).view(x.shape)
        y += x
        return self.head(self.drop(y).flatten(1)).float()


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("make", [own, Odd])
def test_a_program_answers_as_the_network_for_any_number_of_images(tmp_path, make, core):
    network = make().eval()
    program = load_program(save(network, tmp_path / "net.pt2", 1, 8, 8, core=core))
    for count in (1, 2, 5):
        images = torch.randn(count, 1, 8, 8)
        with torch.no_grad():
            expected = network(images)
            for each in (program, deepcopy(program)):
                torch.testing.assert_close(each(images), expected, rtol=1e-5, atol=1e-5)


def test_convolutions_called_as_functions_lie_on_crossbars_as_attention_does(tmp_path, make_chip):
    network = own()
    program = load_program(save(network, tmp_path / "net.pt2", 1, 8, 8))
    images, chip = torch.randn(2, 1, 8, 8), make_chip(crossbar={"rows": 64, "cols": 64})

    of_network, of_program = (to_crossbar(each, chip, example=images).report for each in (network, program))

    names = [{layer.matmul.name for layer in report.layers} for report in (of_network, of_program)]
    assert (names[0] - names[1], names[1] - names[0]) == ({"mix_layer"}, {"mix"})  # of a function: no layer had a name
    assert names[1] >= {"attention.in_proj", "attention.out_proj"}
    assert of_program.folded == of_network.folded
    assert {each.op for each in of_program.digital} == {"Module", "scaled_dot_product_attention"}


def test_weights_of_the_network_that_was_exported_fit_where_they_were_those_of_modules(tmp_path):
    network = Odd().eval()
    program = load_program(save(network, tmp_path / "net.pt2", 1, 8, 8))
    theirs, ours = network.state_dict(), program.state_dict()
    assert theirs.keys() - ours.keys() == {"own.weight"}
    for name in theirs.keys() & ours.keys():
        assert torch.equal(theirs[name], ours[name])
    modules = {name: type(module).__name__ for name, module in program.named_modules()}
    assert modules["norm"] == "BatchNorm2d"
    assert modules["line_norm"] == "BatchNorm1d"
    assert [name for name, kind in modules.items() if kind == "Conv2d"] == [
        "conv", "twice", "own_layer", "own_layer_layer"
    ]  # fmt: skip
    assert program.own_layer.weight is program.own_layer_layer.weight


def test_a_program_trains(tmp_path):
    program = load_program(save(own(), tmp_path / "net.pt2", 1, 8, 8)).train()
    before = {name: tensor.clone() for name, tensor in program.state_dict().items()}
    program(torch.randn(4, 1, 8, 8)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in program.parameters())
    after = program.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} >= {
        "norm.running_mean", "one.norm2.running_var"
    }  # fmt: skip


def changed(source: Path, target: Path, change) -> Path:
    """Copy a program with other parts; `change` gets them by name, without the folder they lie in."""
    with zipfile.ZipFile(source) as file:
        parts = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    change(parts)
    with zipfile.ZipFile(target, "w") as file:
        for name, content in parts.items():
            file.writestr(f"net/{name}", content)
    return target


def edit(part, change):
    """A change of a part in JSON."""

    def apply(parts):
        content = json.loads(parts[part])
        change(content)
        parts[part] = json.dumps(content).encode()

    return apply


def call(target):
    def change(content):
        node = next(each for each in content["graph_module"]["graph"]["nodes"] if "relu" in each["target"])
        node["target"] = target

    return edit(MODEL, change)


def pickled(content):
    content["config"]["0.weight"]["use_pickle"] = True


def larger(content):
    content["config"]["0.weight"]["tensor_meta"]["sizes"][0]["as_int"] = 10**6


def renamed(content):
    specs = content["graph_module"]["signature"]["input_specs"]
    next(each for each in specs if "parameter" in each)["parameter"]["parameter_name"] = 'x"); boom('


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit(WEIGHTS, pickled), "0.weight is no plain tensor but a pickled object, which is not read"),
        (edit(WEIGHTS, larger), "0.weight has 144 bytes; its shape .* needs 36000000"),
        (edit(MODEL, renamed), "has a tensor called"),
        (call("torch.ops.aten.from_file.default"), "which does something else than compute"),
        (call("torch.ops.aten.rand_like.default"), "which answers by chance"),
        (call("torch.ops.aten.no_such.default"), "which PyTorch .* has not"),
        (call("os.system"), r"calls os.system; allowed: operations of torch.ops.aten"),
        (call("torch.ops.higher_order.cond"), "allowed: operations of torch.ops.aten"),
        (lambda parts: parts.pop(MODEL), "it has no models/model.json; torch.export.save"),
        (lambda parts: parts.pop(WEIGHTS), "has no data/weights/model_weights_config.json, but another form"),
        (lambda parts: parts.update({MODEL: b"{}"}), "is damaged, or no program of torch.export: KeyError"),
        (lambda parts: parts.update({MODEL: b"[" * 100_000}), "is damaged, or no program"),
        (lambda parts: parts.update({"byteorder": b"big"}), "its numbers are not little-endian"),
    ],
)
def test_what_would_have_to_be_trusted_or_is_damaged_is_refused_in_one_line(tmp_path, change, message):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    path = changed(save(network, tmp_path / "net.pt2", 1, 8, 8), tmp_path / "other.pt2", change)
    with pytest.raises(DataError, match=message) as error:
        load_program(path)
    assert len(str(error.value).splitlines()) == 1


def test_what_is_pickled_in_a_program_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    def with_trap(parts):
        buffer = io.BytesIO()
        torch.save(Trap(), buffer)
        parts["data/sample_inputs/model.pt"] = buffer.getvalue()

    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    load_program(changed(save(network, tmp_path / "net.pt2", 1, 8, 8), tmp_path / "trap.pt2", with_trap))
    assert not (tmp_path / "ran").exists()


class Two(nn.Module):
    def forward(self, x):
        return x.flatten(1), x.mean()


def test_a_program_of_a_fixed_number_of_images_is_refused_with_how_to_export_it(tmp_path):
    with pytest.raises(DataError, match=r"exported for batches of 2 images; .*dynamic_shapes=\(\{0: torch.export.Dim"):
        load_program(save(own(), tmp_path / "net.pt2", 1, 8, 8, fixed=True))
    with pytest.raises(DataError, match=r"exported in training mode: export net\.eval"):
        load_program(save(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train(), tmp_path / "net.pt2", 1, 8, 8))
    with pytest.raises(DataError, match="gives 2 results; allowed: one tensor"):
        load_program(save(Two(), tmp_path / "net.pt2", 1, 8, 8))


def test_images_of_another_size_are_refused(tmp_path):
    program = load_program(save(own(), tmp_path / "net.pt2", 1, 8, 8))
    with pytest.raises(ValueError, match=r"was exported for images of 1 x 8 x 8; it got \(1, 9, 8\)"):
        program(torch.randn(2, 1, 9, 8))


@pytest.mark.parametrize("name", ["upsample_bilinear2d.vec", "pad.default", "div.Tensor_mode", "einsum.default"])
def test_operations_with_texts_that_name_no_file_are_allowed(name):
    assert callable(function("here", f"torch.ops.aten.{name}"))
