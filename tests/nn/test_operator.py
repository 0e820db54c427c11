"""torch.compile and torch.export take a converted network, and change nothing."""

import pytest
import torch
from torch import nn

from bitline.chip import replace
from bitline.chip.variants import ideal, with_cells
from bitline.errors import ConversionError
from bitline.nn import IDEAL, calibrate, correct_biases, crossbar_layers, on, placement, program, set_chip, to_crossbar
from bitline.nn.ranges import BUFFERS


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, stride=2, padding_mode="circular", padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


@pytest.fixture
def converted(make_chip):
    chip = make_chip(
        cell={"programming": {"kind": "lognormal", "sigma": 0.1}},
        crossbar={"rows": 16, "cols": 64},
        adc={"bits": 5, "policy": "calibrated"},
    )
    x = torch.rand(5, 3, 8, 8)
    model, _ = to_crossbar(network(), chip, example=x)
    calibrate(model, [x])
    program(model, 3)
    return model, x


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_answers_the_same_in_one_graph(converted):
    model, x = converted
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(x), model(x))
        program(model, 4)
        assert torch.equal(compiled(x), model(x))


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_follows_its_chip_by_whatever_door_it_changes(converted):
    model, x = converted
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    chip = placement(model).chip
    answers = []
    with torch.no_grad():
        answers.append(compiled(x))
        for layer in crossbar_layers(model).values():  # a layer's chip by hand, its seed with it
            layer.chip = ideal(chip)
        program(model, IDEAL)
        answers.append(compiled(x))
        assert torch.equal(answers[-1], model(x))
        for layer in crossbar_layers(model).values():
            layer.chip = chip
        program(model, 3)
        assert torch.equal(compiled(x), answers[0])
        for other, seed in ((ideal(chip), IDEAL), (with_cells(chip), IDEAL), (chip, 3), (chip, 4)):
            with on(model, other, seed):
                answers.append(compiled(x))
                assert torch.equal(answers[-1], model(x))
            assert torch.equal(compiled(x), answers[0])
        set_chip(model, replace(chip, "adc.bits=3"))
        answers.append(compiled(x))
        assert torch.equal(answers[-1], model(x))
    assert torch.equal(answers[1], answers[2])
    assert torch.equal(answers[4], answers[0])
    assert not any(torch.equal(answers[0], answers[i]) for i in (1, 3, 5, 6))


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_takes_biases_that_a_correction_added(make_chip):
    chip = make_chip(cell={"programming": {"kind": "lognormal", "sigma": 0.3}}, crossbar={"rows": 16, "cols": 64})
    x = torch.rand(8, 8)
    model = to_crossbar(nn.Sequential(nn.Linear(8, 4, bias=False)), chip, example=x).model
    calibrate(model, [x])
    program(model, 1)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        bare = compiled(x)
        before = correct_biases(model, [x])
        assert torch.equal(compiled(x), model(x))
        assert not torch.equal(compiled(x), bare)
        before.restore()
        assert torch.equal(compiled(x), bare)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_has_the_gradients_of_the_network(converted):
    model, x = converted
    found: list[list[torch.Tensor]] = []
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        inputs = x.clone().requires_grad_()
        run(inputs).square().sum().backward()
        found.append([inputs.grad.clone(), *(p.grad.clone() for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert bool(one.any())
        torch.testing.assert_close(one, other)


@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_answers_the_same_after_a_round_trip_through_a_file(converted, tmp_path):
    model, x = converted
    with torch.no_grad():
        wanted = model(x)
        torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    assert torch.equal(torch.export.load(tmp_path / "model.pt2").module()(x), wanted)


@pytest.mark.filterwarnings("ignore")
def test_read_noise_in_an_exported_network_is_an_error(converted):
    model, x = converted
    chip = next(m.chip for m in model.modules() if hasattr(m, "chip"))
    noisy = chip.model_copy(
        update={
            "cell": type(chip.cell).model_validate(
                chip.cell.model_dump() | {"read_noise": {"kind": "absolute", "sigma": "1 uS"}}
            )
        }
    )
    set_chip(model, noisy)
    with pytest.raises(ConversionError, match="has read noise, which no compiled or exported network can draw anew"):
        torch.export.export(model, (x,))


def test_the_operator_passes_the_checks_of_pytorch(converted):
    model, x = converted
    layer = model[0]
    ranges = layer.ranges
    buffers = [*(ranges.get_buffer(name) for name in BUFFERS), layer.chip_seed]
    arguments = (x, layer.weight.detach(), layer.bias.detach(), buffers, layer._text)
    torch.library.opcheck(torch.ops.bitline.answer.default, arguments, test_utils=("test_schema", "test_faketensor"))
