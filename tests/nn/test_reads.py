"""Programming error and read noise: which chip, which image, and nothing else decides."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from bitline.mapping import lower
from bitline.nn import calibrate, program, set_chip, to_crossbar


def on_chip(model: nn.Module, chip, x: Tensor) -> nn.Module:
    converted = to_crossbar(model, chip).model
    calibrate(converted, [x])
    return converted


NOISY = {
    "programming": {"kind": "lognormal", "sigma": 0.2},
    "faults": {"stuck_off": 0.05, "stuck_on": 0.05},
    "read_noise": {"kind": "proportional", "sigma": 0.1},
}


def noisy_layer(make_chip) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 7, 3, padding=1), torch.randn(6, 4, 7, 7)
    chip = make_chip(crossbar={"rows": 31, "cols": 32}, cell=NOISY, adc={"bits": 7, "policy": "calibrated"})
    return on_chip(layer, chip, x), x


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(make_chip):
    model, x = noisy_layer(make_chip)
    answers: list[Tensor] = []
    for sizes in ((6,), (1, 1, 1, 1, 1, 1), (2, 4), (5, 1)):
        program(model, 11)
        answers.append(torch.cat([model(part) for part in x.split(list(sizes))]))
    for answer in answers[1:]:
        assert torch.equal(answer, answers[0])
    # The same images again are other reads.
    assert not torch.equal(model(x), answers[0])


@torch.no_grad()
def test_a_layer_called_by_itself_does_not_depend_on_its_batch_either(make_chip):
    model, x = noisy_layer(make_chip)
    wrapped = to_crossbar(nn.Sequential(nn.Conv2d(4, 7, 3, padding=1)), model.chip).model
    calibrate(wrapped, [x])
    answers: list[Tensor] = []
    for size in (6, 1, 4):
        program(wrapped, 3)
        answers.append(torch.cat([wrapped[0](part) for part in x.split(size)]))
    assert torch.equal(answers[1], answers[0])
    assert torch.equal(answers[2], answers[0])


@torch.no_grad()
def test_how_many_inputs_are_held_at_once_changes_no_bit(make_chip, monkeypatch):
    model, x = noisy_layer(make_chip)
    program(model, 11)
    whole = model(x)
    monkeypatch.setattr(lower, "UNFOLDED_BYTES", 5000)
    program(model, 11)
    assert torch.equal(model(x), whole)


@torch.no_grad()
def test_the_number_of_threads_changes_no_bit(make_chip):
    model, x = noisy_layer(make_chip)
    threads, answers = torch.get_num_threads(), list[Tensor]()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            program(model, 5)
            answers.append(model(x))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*answers)


@torch.no_grad()
def test_a_seed_is_a_chip(make_chip):
    model, x = noisy_layer(make_chip)
    set_chip(model, make_chip(crossbar={"rows": 31, "cols": 32}, cell={**NOISY, "read_noise": "none"}))
    answers: dict[int, Tensor] = {}
    for seed in (1, 2, 1, -1):
        program(model, seed)
        answer = model(x)
        assert torch.equal(answers.setdefault(seed, answer), answer)
    assert not torch.equal(answers[1], answers[2])
    assert not torch.equal(answers[1], answers[-1])


@torch.no_grad()
def test_each_layer_has_cells_of_its_own(make_chip):
    layer, x = nn.Linear(10, 6), torch.randn(5, 10)
    twins = nn.ModuleList([layer, nn.Linear(10, 6)])
    twins[1].load_state_dict(layer.state_dict())
    chip = make_chip(
        crossbar={"rows": 16, "cols": 32}, cell={"programming": NOISY["programming"]}, adc={"policy": "lossless"}
    )
    model = to_crossbar(twins, chip).model
    for one in model:
        one.ranges.input_scale.fill_(0.1)
    assert torch.equal(model[0](x), model[1](x))
    program(model, 1)
    assert not torch.equal(model[0](x), model[1](x))


class Twice(nn.Module):
    """A layer that runs twice within one pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


@torch.no_grad()
def test_read_noise_of_a_layer_that_runs_twice_does_not_depend_on_the_batch(make_chip):
    torch.manual_seed(0)
    x = torch.rand(6, 10)
    chip = make_chip(crossbar={"rows": 16, "cols": 32}, cell=NOISY, adc={"bits": 8})
    model = on_chip(Twice(), chip, x)
    answers: list[Tensor] = []
    for size in (6, 1, 4):
        program(model, 3)
        answers.append(torch.cat([model(part) for part in x.split(size)]))
    assert torch.equal(answers[1], answers[0])
    assert torch.equal(answers[2], answers[0])


@torch.no_grad()
def test_the_two_reads_of_a_layer_that_runs_twice_differ(make_chip):
    chip = make_chip(
        crossbar={"rows": 16, "cols": 32}, cell={"read_noise": NOISY["read_noise"]}, adc={"policy": "lossless"}
    )
    torch.manual_seed(0)
    x = torch.rand(1, 10)
    model = on_chip(Twice(), chip, x)
    program(model, 0)
    outputs: list[Tensor] = []
    model.layer.register_forward_hook(lambda _m, args, out: outputs.append(out))
    model.layer.register_forward_pre_hook(lambda _m, _args: (x,))
    model(x)
    assert not torch.equal(*outputs)


@torch.no_grad()
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_number_the_calls_of_a_layer_as_the_network_does(make_chip, copied):
    torch.manual_seed(0)
    x = torch.rand(5, 10)
    model = on_chip(Twice(), make_chip(crossbar={"rows": 31, "cols": 64}, cell=NOISY), x)
    program(model, 2)
    other = copied(model)
    for _ in range(2):
        assert torch.equal(other(x), model(x))
    assert model.layer.reads.counts == {(True, 0): 10, (True, 1): 10}
    assert other.layer.reads == model.layer.reads
