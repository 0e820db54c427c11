"""A converted network as PyTorch users expect one: copies, states, parameters, training."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from bitline import load_chip
from bitline.cost.model import price
from bitline.errors import ConversionError
from bitline.nn import IDEAL, calibrate, placement, program, set_chip, to_crossbar
from bitline.nn.ranges import BUFFERS


def wide(make_chip, **sections):
    return make_chip(crossbar={"rows": 64, "cols": 64}, **sections)


def small_network(make_chip) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    x = torch.randn(4, 2, 6, 6)
    chip = wide(make_chip, cell={"programming": {"kind": "lognormal", "sigma": 0.1}}, adc={"policy": "calibrated"})
    model = to_crossbar(net.eval(), chip, example=x).model
    calibrate(model, [x])
    program(model, 9)
    return model, x


@torch.no_grad()
def test_a_copy_is_independent_and_answers_the_same(make_chip):
    model, x = small_network(make_chip)
    before = model(x)
    twin = copy.deepcopy(model)
    thawed = pickle.loads(pickle.dumps(model))
    for other in (twin, thawed):
        assert torch.equal(other(x), before)
        program(other, 10)
        other[0].weight.mul_(2)
        assert not torch.equal(other(x), before)
    assert torch.equal(model(x), before)
    set_chip(copy.deepcopy(model), wide(make_chip, adc={"bits": 3, "policy": "calibrated"}))
    assert torch.equal(model(x), before)


@torch.no_grad()
@pytest.mark.parametrize("policy", ["calibrated", "lossless", "full"])
@pytest.mark.parametrize("granularity", ["layer", "slice_digit", "column"])
def test_a_state_restores_a_network_in_a_fresh_one(make_chip, tmp_path, policy, granularity):
    from safetensors.torch import load_model, save_file, save_model

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    x = torch.randn(4, 2, 6, 6)
    chip = wide(make_chip, adc={"policy": policy, "granularity": granularity})

    model = to_crossbar(net, chip).model
    calibrate(model, [x])
    program(model, 2)
    wanted = model(x)

    def fresh() -> nn.Module:
        blank = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        return to_crossbar(blank, chip).model

    direct, stored, whole = fresh(), fresh(), fresh()
    assert direct.load_state_dict(model.state_dict(), strict=True).missing_keys == []
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    load_model(stored, tmp_path / "state.safetensors", strict=True)
    save_model(model, str(tmp_path / "model.safetensors"))
    load_model(whole, tmp_path / "model.safetensors", strict=True)
    for other in (direct, stored, whole):
        assert torch.equal(other(x), wanted)
        assert {n: b.dtype for n, b in other.named_buffers()} == {n: b.dtype for n, b in model.named_buffers()}


def test_the_keys_of_the_plain_network_stay_keys(make_chip):
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))
    converted = to_crossbar(plain, make_chip()).model
    extra = {*BUFFERS, "chip_seed", "calibrated_for", "reads", "made_for"}
    assert {key for key in converted.state_dict() if key.rpartition(".")[2] not in extra} == set(plain.state_dict())
    assert [n for n, _ in converted.named_parameters()] == [n for n, _ in plain.named_parameters()]


def test_frozen_parameters_stay_frozen(make_chip):
    plain = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    for parameter in plain[0].parameters():
        parameter.requires_grad_(False)
    plain[2].bias.requires_grad_(False)
    converted = to_crossbar(plain, make_chip()).model
    assert {n: p.requires_grad for n, p in converted.named_parameters()} == {
        "0.weight": False,
        "0.bias": False,
        "2.weight": True,
        "2.bias": False,
    }


def test_a_few_steps_of_training_on_the_chip_lower_the_loss(make_chip):
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    labels = (x[:, 0] * x[:, 1] > 0).long()
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    chip = wide(
        make_chip, cell={"programming": {"kind": "lognormal", "sigma": 0.1}}, adc={"policy": "calibrated", "bits": 6}
    )
    model = to_crossbar(net, chip).model
    calibrate(model, [x])
    program(model, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    losses: list[float] = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@torch.no_grad()
def test_a_state_from_before_layers_had_parts_gives_the_same_answers():
    """State and answers, of ideal cells, are of a version that kept ranges beside weights, and told chips apart by how
    their records print."""
    chip = load_chip("rram-22nm", ["adc.bits=4"])
    old = load_file(Path(__file__).parent / "state_before_parts.safetensors")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    model = to_crossbar(net, chip, example=old["x"]).model
    model.load_state_dict({key: value for key, value in old.items() if key not in ("x", "y")})
    assert int(model[0].chip_seed) == 2
    assert not torch.equal(model(old["x"]), old["y"])
    program(model, IDEAL)
    assert torch.equal(model(old["x"]), old["y"])
    again = to_crossbar(net, chip, example=old["x"]).model
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(old["x"]), old["y"])
    other = to_crossbar(net, load_chip("rram-22nm", ["adc.bits=5"]), example=old["x"]).model
    with pytest.raises(
        ConversionError, match=r"^layer 0: the state has ranges of another chip .* does not say in what"
    ):
        other.load_state_dict({key: value for key, value in old.items() if key not in ("x", "y")})


OTHERS = [
    ("adc.bits=6", "adc.bits = 6 there, 5 here"),
    ("inputs.bits=7", "inputs.bits = 7 there, 8 here"),
    ("weights.encoding=pair", "weights.encoding.kind = 'pair' there, 'offset' here"),
    ("adc.granularity=layer", "adc.granularity = 'layer' there, 'slice_digit' here"),
]


@torch.no_grad()
@pytest.mark.parametrize(("override", "told"), OTHERS)
@pytest.mark.parametrize("inside", [False, True])
def test_the_state_of_another_chip_is_refused_and_leaves_the_network_as_it_was(override, told, inside):
    torch.manual_seed(0)
    x = torch.rand(16, 40)

    def made(*overrides: str) -> nn.Module:
        net = nn.Sequential(nn.Linear(40, 8), nn.ReLU(), nn.Linear(8, 4))
        model = to_crossbar(net, load_chip("rram-22nm", overrides), example=x).model
        calibrate(model, [x])
        return program(model, 1) or model

    mine, theirs = made(), made(override)
    # Only the second layer is another's, so that the first would have been loaded.
    state = {**mine.state_dict(), **{key: value for key, value in theirs.state_dict().items() if key[0] == "2"}}
    state = {key: value + 1 if key == "0.weight" else value for key, value in state.items()}
    before, answer = copy.deepcopy(mine.state_dict()), mine(x)
    outer = nn.ModuleDict({"network": mine}) if inside else mine
    prefix = "network." if inside else ""
    with pytest.raises(ConversionError, match=r"^layer 2: the state has ranges of another chip than") as error:
        outer.load_state_dict({prefix + key: value for key, value in state.items()})
    assert told in str(error.value)
    assert mine.state_dict().keys() == before.keys()
    for key, value in mine.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.equal(mine(x), answer)
    with pytest.raises(ConversionError, match="ranges of another chip"):
        mine[2].load_state_dict(theirs[2].state_dict())


def test_a_state_of_plain_weights_leaves_ranges_alone(make_chip):
    model, _ = small_network(make_chip)
    lsb = model[0].ranges.adc_lsb.clone()
    model.load_state_dict({"0.weight": torch.zeros_like(model[0].weight)}, strict=False)
    assert torch.equal(model[0].ranges.adc_lsb, lsb)


def test_a_network_without_values_converts_and_has_the_price_of_one_with_them():
    def net() -> nn.Module:
        conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
        return conv.eval()

    chip, x = load_chip("rram-22nm"), torch.rand(2, 3, 8, 8)
    expected = price(placement(to_crossbar(net(), chip, example=x).model))
    with torch.device("meta"):
        hollow = net()
    for example in (x, x.to("meta")):
        converted = to_crossbar(hollow, chip, example=example)
        assert converted.report.folded == {"1": "0"}
        assert price(placement(converted.model)) == expected
    moved = to_crossbar(net(), chip, example=x).model.to("meta")
    assert price(placement(moved)) == expected


@torch.no_grad()
def test_ranges_that_are_written_in_place_are_the_ranges_of_the_next_answer(make_chip):
    chip = make_chip(crossbar={"rows": 64, "cols": 64}, adc={"bits": 4, "policy": "calibrated"})
    x = torch.rand(5, 12)
    model = to_crossbar(nn.Sequential(nn.Linear(12, 8)), chip, example=x).model
    calibrate(model, [x])
    model(x)
    model[0].ranges.adc_lsb.mul_(2)
    assert torch.equal(model(x), copy.deepcopy(model)(x))
