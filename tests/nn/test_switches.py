"""Each source of error does what it does, whatever others there are, and in whatever layer."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitline.nn import calibrate, program, to_crossbar

ROWS, COLS, ACTIVE, SEED = 24, 6, 16, 3
ERRORS: dict[str, dict] = {
    "programming": {"cell": {"programming": {"kind": "lognormal", "sigma": 0.2}}},
    "faults": {"cell": {"faults": {"stuck_off": 0.1, "stuck_on": 0.15}}},
    "read_noise": {"cell": {"read_noise": {"kind": "absolute", "sigma": "4 uS"}}},
    "leak": {"cell": {"leak": "kept"}},
    "adc": {"adc": {"policy": "full", "bits": 4}},
}
COMBINATIONS = [c for n in range(len(ERRORS) + 1) for c in itertools.combinations(ERRORS, n)]


def merged(*sections: dict) -> dict:
    whole: dict = {}
    for section in sections:
        for name, keys in section.items():
            whole[name] = {**whole.get(name, {}), **keys}
    return whole


def chip_with(make_chip, *names: str):
    base = {
        "cell": {"g_min": "1 uS", "g_max": "97 uS", "bits": 2},  # a step of 32 uS: g_min is 1/32 level
        "crossbar": {"rows": ACTIVE, "cols": 32},
        "adc": {"policy": "lossless"},
        "weights": {"bits": 4, "granularity": "tensor"},
        "inputs": {"bits": 4, "calibration": "max"},
    }
    return make_chip(**merged(base, *(ERRORS[name] for name in names)))


def integers() -> tuple[Tensor, Tensor]:
    """Weights and inputs that a scale of 1 holds without error."""
    rng = torch.Generator().manual_seed(0)
    w = torch.randint(-8, 8, (COLS, ROWS), generator=rng).float()
    x = torch.randint(0, 16, (5, ROWS), generator=rng).float()
    w[0, :2], x[0, 0] = torch.tensor([7.0, -8.0]), 15
    return w, x


def on_chip(chip, w: Tensor, x: Tensor) -> nn.Module:
    plain = nn.Sequential(nn.Linear(ROWS, COLS, bias=False)).eval()
    plain[0].weight.data.copy_(w)
    model = to_crossbar(plain, chip).model
    calibrate(model, [x])
    assert float(model[0].ranges.input_scale) == 1
    program(model, SEED)
    return model


def levels(chip, w: Tensor, x: Tensor) -> np.ndarray:
    """What the cells add, (slices, rows, columns)."""
    return on_chip(chip, w, x)[0].crossbars(chip, SEED).levels[0, 0].double().numpy()


class Parts:
    """What each error does by itself: levels written, cells stuck, noise of each conversion."""

    def __init__(self, make_chip) -> None:
        self.w, self.x = integers()
        u = self.w.T.numpy().astype(int) + 8
        self.targets = np.stack([u & 3, u >> 2]).astype(float)
        self.written = levels(chip_with(make_chip, "programming"), self.w, self.x)
        # A cell is stuck where two unlike targets end on the same level.
        broken = chip_with(make_chip, "faults")
        one, other = levels(broken, self.w, self.x), levels(broken, -1 - self.w, self.x)
        self.stuck = np.where(one == other, one, -1)
        self.digits = np.stack([(self.x.numpy().astype(int) >> p) & 1 for p in range(4)]).astype(float)
        seen: list[np.ndarray] = []
        model = on_chip(chip_with(make_chip, "read_noise"), self.w, self.x)
        q = model[0].integers(self.x)
        model[0].multiply(q, model[0].read(q), observer=lambda a, _: seen.append(a[0, :, :, :, 0].double().numpy()))
        exact = self.sums(self.targets)
        self.noise = [noisy - quiet for noisy, quiet in zip(seen, exact, strict=True)]

    def sums(self, cells: np.ndarray) -> list[np.ndarray]:
        """Analog sums of each row tile, (digits, vectors, slices, columns)."""
        tiles = [slice(0, ACTIVE), slice(ACTIVE, ROWS)]
        return [np.einsum("pvr,src->pvsc", self.digits[:, :, t], cells[:, t]) for t in tiles]

    def answer(self, names: tuple[str, ...]) -> np.ndarray:
        """What a chip with these errors answers."""
        cells = self.written if "programming" in names else self.targets
        cells = np.where(self.stuck >= 0, self.stuck, cells) if "faults" in names else cells
        leak = 1 / 32 if "leak" in names else 0.0
        y = np.zeros((len(self.x), COLS))
        for a, noise in zip(self.sums(cells + leak), self.noise, strict=True):
            a = a + noise if "read_noise" in names else a
            if "adc" in names:
                mantissa, exponent = math.frexp(ACTIVE * (3 + leak) / 15)
                lsb = max(1.0, math.ldexp(round(mantissa * 1024), exponent - 10))
                a = np.clip(np.rint(a / lsb), 0, 15) * lsb
            else:
                a = np.rint(a)
            weights = 2.0 ** np.arange(4)[:, None] * 4.0 ** np.arange(2)
            y += np.einsum("pvsc,ps->vc", a, weights)
        return y - 8 * self.x.numpy().sum(1, keepdims=True)


@pytest.fixture(scope="module")
def parts(make_chip) -> Parts:
    return Parts(make_chip)


def test_each_error_by_itself_is_there(parts):
    assert np.abs(parts.written - parts.targets).max() > 0.5
    assert 0.1 < (parts.stuck >= 0).mean() < 0.4
    assert 0.2 < np.concatenate([n.flatten() for n in parts.noise]).std() < 0.6
    assert np.array_equal(parts.answer(()), (parts.x @ parts.w.T).numpy())


@torch.no_grad()
@pytest.mark.parametrize("names", COMBINATIONS, ids=lambda names: "+".join(names) or "ideal")
def test_each_combination_of_errors_changes_the_answer_by_exactly_those(make_chip, parts, names):
    model = on_chip(chip_with(make_chip, *names), parts.w, parts.x)
    answer = model(parts.x)
    assert np.array_equal(answer.numpy(), parts.answer(names).astype(np.float32))
    # A lossless ADC rounds a leak of less than half a level away where nothing else moves the sums.
    for name in names:
        without = tuple(other for other in names if other != name)
        same = np.array_equal(parts.answer(names), parts.answer(without))
        assert same == (names == ("leak",) or (set(names) == {"leak", "faults"} and name == "leak")), name


SOURCES: dict[str, dict] = {
    "ideal": {},
    **ERRORS,
    "gaussian_proportional": {"cell": {"programming": {"kind": "gaussian_proportional", "sigma": 0.1}}},
    "gaussian_absolute": {"cell": {"programming": {"kind": "gaussian_absolute", "sigma": "5 uS"}}},
    "per_level": {"cell": {"programming": {"kind": "per_level", "sigma": ["1 uS", "2 uS", "3 uS", "4 uS"]}}},
    "proportional noise": {"cell": {"read_noise": {"kind": "proportional", "sigma": 0.1}}},
    "calibrated": {"adc": {"policy": "calibrated", "bits": 4}},
    "columns": {"adc": {"policy": "calibrated", "bits": 4, "granularity": "column"}},
    "batch": {"adc": {"policy": "batch_minmax", "bits": 4}},
    "fixed": {"adc": {"policy": "fixed", "bits": 4, "range": {"low": "0 uA", "high": "250 uA"}}},
    "pair": {"weights": {"encoding": "pair"}, "adc": {"policy": "full", "bits": 5}},
    "digital pair": {"weights": {"encoding": {"kind": "pair", "subtract": "digital"}}},
    "twos_complement": {"weights": {"encoding": "twos_complement"}},
    "column": {"weights": {"encoding": {"kind": "offset", "sum": "column"}}},
    "digits of two bits": {"dac": {"bits": 2}},
    "power of two": {"weights": {"scale": "power_of_two"}, "inputs": {"scale": "power_of_two"}},
}
MITIGATED = {
    "measured": {"weights": {"encoding": {"kind": "offset", "correction": "measured"}}},
    "expected": {"weights": {"encoding": {"kind": "offset", "correction": "expected"}}},
    "remap": {"mitigation": {"remap": True, "flip": True}},
    "nearest": {"mitigation": {"nearest": True}},
    "readback": {"mitigation": {"readback": True, "rewrites": 1}},
    "verify": {"mitigation": {"verify": 0.3, "tolerance": 0.1}},
}
BROKEN = merged(ERRORS["programming"], ERRORS["faults"])
SOURCES |= {name: merged(BROKEN, section) for name, section in MITIGATED.items()}
SOURCES["all"] = merged(BROKEN, *ERRORS.values())


@torch.no_grad()
@pytest.mark.parametrize("source", SOURCES)
def test_a_convolution_of_one_place_is_the_linear_layer_of_its_weights(make_chip, source):
    chip = make_chip(
        **merged({"crossbar": {"rows": ACTIVE, "cols": 64}, "adc": {"policy": "lossless"}}, SOURCES[source])
    )
    torch.manual_seed(0)
    linear = nn.Linear(ROWS, COLS)
    x = torch.randn(7, ROWS)
    answers = []
    for make, axes in ((None, 0), (nn.Conv1d, 1), (nn.Conv2d, 2)):
        layer = linear
        if make is not None:
            layer = make(ROWS, COLS, 1)
            layer.weight.data.copy_(linear.weight.view_as(layer.weight))
            layer.bias.data.copy_(linear.bias)
        shaped = x.view(*x.shape, *[1] * axes)
        model = to_crossbar(nn.Sequential(layer), chip, example=shaped).model
        calibrate(model, [shaped])
        program(model, SEED)
        answers.append(model(shaped).flatten(1))
    assert torch.equal(answers[1], answers[0])
    assert torch.equal(answers[2], answers[0])
    assert not torch.equal(answers[0], linear(x))
