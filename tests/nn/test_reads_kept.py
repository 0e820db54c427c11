"""How often a layer was read is kept with it, and a pass that is repeated for its gradient reads what it read."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bitline.errors import ConversionError
from bitline.nn import IDEAL, calibrate, program, to_crossbar

CELL = {"read_noise": {"kind": "proportional", "sigma": 0.1}, "programming": {"kind": "lognormal", "sigma": 0.1}}


class Shared(nn.Module):
    """Two segments; the layers of the second run twice in one pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 12), nn.ReLU())
        self.again = nn.Sequential(nn.Linear(12, 12), nn.Dropout(0.2), nn.ReLU())
        self.last = nn.Linear(12, 3)
        self.repeat = lambda part, x: part(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.repeat(self.first, x)
        x = self.repeat(self.again, self.repeat(self.again, x))
        return self.last(x)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "repeat": None}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__({**state, "repeat": lambda part, x: part(x)})


def noisy(make_chip) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    chip = make_chip(crossbar={"rows": 16, "cols": 64}, cell=CELL, adc={"bits": 7, "policy": "calibrated"})
    x = torch.rand(8, 10)
    model = to_crossbar(Shared(), chip, example=x).model
    calibrate(model, [x])
    program(model, 3)
    return model, x


def loaded(model: nn.Module) -> nn.Module:
    other = to_crossbar(Shared(), model.last.chip).model
    other.load_state_dict(model.state_dict())
    return other.train(model.training)


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = to_crossbar(Shared(), model.last.chip).model
    other.load_state_dict(torch.load(file, weights_only=True))
    return other.train(model.training)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("copied", [loaded, saved, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_answers_as_the_original_would_at_its_next_call(make_chip, copied, training):
    model, x = noisy(make_chip)
    answers = []
    for each in (model, copied):
        if each is copied:
            model, x = noisy(make_chip)
        model.train()(x[:5])
        model.eval()(x[:3])
        model.train(training)(x)
        model = copied(model) if each is copied else model
        torch.manual_seed(1)  # of dropout
        answers.append(model(x))
    assert torch.equal(*answers)


@torch.no_grad()
def test_a_state_from_before_reads_were_kept_begins_at_the_first_image(make_chip):
    model, x = noisy(make_chip)
    model.eval()
    first = model(x)
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("reads")}
    assert len(state) < len(model.state_dict())
    assert not torch.equal(model(x), first)
    model.load_state_dict(state, strict=True)
    assert torch.equal(model(x), first)


@pytest.mark.parametrize("reads", [torch.zeros(3, 1, dtype=torch.int64), torch.full((2, 1), -1), torch.zeros(2, 1)])
def test_counts_that_cannot_be_are_refused(make_chip, reads):
    model, _ = noisy(make_chip)
    with pytest.raises(ConversionError, match=r"expected int64 \(2, calls\), none below 0"):
        model.load_state_dict({**model.state_dict(), "last.reads": reads})


def trained(make_chip, *, look) -> list[Tensor]:
    model, x = noisy(make_chip)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.arange(8) % 3).backward()
        optimizer.step()
        model.eval()
        look(model, x)
        model.train()
    return [p.detach().clone() for p in model.parameters()]


def test_an_evaluation_between_two_steps_changes_no_bit_of_training(make_chip):
    def look_without_gradient(model, x):
        with torch.no_grad():
            model(x[:5])

    def calibrate_again(model, x):
        calibrate(model, [x[:4]])
        calibrate(model, [x])

    alone = trained(make_chip, look=lambda model, x: calibrate(model, [x]))
    for look in (look_without_gradient, lambda model, x: model(x)):
        both = trained(make_chip, look=lambda model, x, look=look: (look(model, x), calibrate(model, [x])))
        assert all(map(torch.equal, both, alone))
    assert all(map(torch.equal, trained(make_chip, look=calibrate_again), alone))


@torch.no_grad()
def test_training_in_between_changes_no_bit_of_an_evaluation(make_chip):
    answers = []
    for steps in (0, 2):
        model, x = noisy(make_chip)
        model.eval()
        first = model(x)
        model.train()
        for _ in range(steps):
            model(x)
        answers.append(torch.stack([first, model.eval()(x)]))
    assert torch.equal(*answers)
    assert not torch.equal(*answers[0])


def plain(part, x):
    return part(x)


def repeated(part, x):
    return checkpoint(part, x, use_reentrant=False)


def reentrant(part, x):
    return checkpoint(part, x, use_reentrant=True)


def nested(part, x):
    return checkpoint(lambda x: checkpoint(part, x, use_reentrant=False), x, use_reentrant=False)


def nested_reentrant(part, x):
    return checkpoint(lambda x: checkpoint(part, x, use_reentrant=True), x, use_reentrant=True)


def gradients(make_chip, repeat, run, *, train: bool = True) -> list[Tensor]:
    model, x = noisy(make_chip)
    model.train(train)
    model.repeat = repeat
    torch.manual_seed(5)
    run(model, x.clone().requires_grad_())
    after = model(x)  # what the next step reads
    return [*(p.grad for p in model.parameters()), after.detach()]


def once(model, x):
    model(x).square().sum().backward()


def in_steps(model, x):
    for part in x.split(3):
        model(part).square().sum().backward()


def all_forward_first(model, x):
    for y in [model(part) for part in x.split(3)]:
        y.square().sum().backward()


def backward_in_reverse(model, x):
    for y in [model(part) for part in x.split(3)][::-1]:
        y.square().sum().backward()


def the_same_images_twice(model, x):
    one, two = model(x), model(x)
    one.square().sum().backward()
    two.pow(4).sum().backward()


def the_same_images_twice_in_one_loss(model, x):
    (model(x) - 2 * model(x)).square().sum().backward()


def twice_through_one_graph(model, x):
    y = model(x).square().sum()
    y.backward(retain_graph=True)
    y.backward()


RUNS = [
    once,
    in_steps,
    all_forward_first,
    backward_in_reverse,
    the_same_images_twice,
    the_same_images_twice_in_one_loss,
    twice_through_one_graph,
]


@pytest.mark.filterwarnings("ignore:.*requires_grad=True")
@pytest.mark.parametrize("repeat", [repeated, reentrant, nested, nested_reentrant], ids=lambda f: f.__name__)
@pytest.mark.parametrize("run", RUNS, ids=lambda f: f.__name__)
def test_gradients_with_checkpointing_are_those_without(make_chip, repeat, run):
    expected = gradients(make_chip, plain, run)
    got = gradients(make_chip, repeat, run)
    assert all(float(g.abs().max()) > 0 for g in expected)
    # Reentrant ones add up the gradients of a shared weight in another order.
    tolerance = 2e-6 if repeat in (reentrant, nested_reentrant) else 0
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.abs().max()))


def test_gradients_with_checkpointing_are_those_without_in_evaluation_mode_too(make_chip):
    for run in RUNS:
        expected = gradients(make_chip, plain, run, train=False)
        got = gradients(make_chip, repeated, run, train=False)
        assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize("train", [True, False])
def test_a_pass_that_cannot_be_repeated_as_it_was_is_refused(make_chip, train):
    model, x = noisy(make_chip)
    model.train(train)
    if train:
        model.repeat = lambda part, x: checkpoint(part, x, use_reentrant=False, preserve_rng_state=False)
    else:
        model.repeat = reentrant
    y = model(x.requires_grad_())
    with pytest.raises(ConversionError, match=r"^layer again.0: a forward pass is repeated .* preserve_rng_state"):
        y.sum().backward()


def test_two_passes_with_the_same_random_numbers_before_a_backward_pass_are_refused(make_chip):
    model, x = noisy(make_chip)
    model.train()
    model.repeat = repeated
    answers = []
    for part in x.split(3)[:2]:
        torch.manual_seed(7)
        answers.append(model(part.requires_grad_()))
    with pytest.raises(ConversionError, match="two forward passes before a backward pass had the same random numbers"):
        sum(y.square().sum() for y in answers).backward()


def test_the_same_random_numbers_in_every_step_are_no_fault(make_chip):
    def seeded_steps(model, x):
        for part in x.split(3):
            torch.manual_seed(7)
            model(part).square().sum().backward()

    expected = gradients(make_chip, plain, seeded_steps)
    got = gradients(make_chip, repeated, seeded_steps)
    assert all(map(torch.equal, got, expected))


def test_chips_without_read_noise_leave_the_random_numbers_of_pytorch_alone(make_chip):
    model, x = noisy(make_chip)
    program(model, IDEAL)
    model.first[2].eval()  # dropout draws
    model.again[1].eval()
    state = torch.get_rng_state()
    model(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(not layer.reads.counts for layer in model.modules() if hasattr(layer, "reads"))
