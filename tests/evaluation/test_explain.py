"""What is said of a layer's path is what the layer does."""

import pytest
import torch
from torch import nn

from bitline.errors import ConversionError
from bitline.evaluation.explain import LayerPath, explain, summary
from bitline.mvm import native
from bitline.nn import IDEAL, calibrate, crossbar_layers, program, to_crossbar

VARIED = {"programming": {"kind": "lognormal", "sigma": 0.1}}
CHIPS = {
    "calibrated": {"adc": {"bits": 4, "policy": "calibrated"}},
    "varied": {"cell": VARIED},
    "lossless": {"adc": {"policy": "lossless"}},
    "lossless and varied": {"adc": {"policy": "lossless"}, "cell": VARIED},
    "minmax": {"adc": {"policy": "batch_minmax"}},
    "noisy": {"cell": {"read_noise": {"kind": "absolute", "sigma": "1 uS"}}},
    "noisy and lossless": {
        "adc": {"policy": "lossless"},
        "cell": {"read_noise": {"kind": "absolute", "sigma": "1 uS"}},
    },
    "noisy in proportion": {"cell": {"read_noise": {"kind": "proportional", "sigma": 0.05}}},
    "wide inputs": {"inputs": {"bits": 9}},
    "pairs": {"weights": {"bits": 4, "encoding": "pair"}, "adc": {"bits": 4, "policy": "calibrated"}},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2, dilation=2, padding_mode="reflect", padding=1),
        nn.ReLU(),
        nn.Flatten(2),
        nn.Conv1d(6, 4, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


@pytest.mark.parametrize("seed", [0, IDEAL])
@pytest.mark.parametrize("path", [*native.paths(), native.TENSOR])
@pytest.mark.parametrize("name", CHIPS)
def test_a_layer_runs_on_the_path_that_is_told(make_chip, monkeypatch, name, path, seed):
    monkeypatch.setenv(native.VARIABLE, path)
    x = torch.randn(2, 4, 8, 8)
    model, _ = to_crossbar(network(), make_chip(**CHIPS[name]), example=x)
    calibrate(model, [x])
    program(model, seed)
    told = explain(model)

    ran: list[str] = []
    for method in ("multiply", "multiply_scaled"):
        real = getattr(native.Plan, method)
        monkeypatch.setattr(
            native.Plan, method, lambda plan, *a, real=real, **k: (ran.append(plan.kind), real(plan, *a, **k))[1]
        )
    with torch.no_grad():
        model(x)

    assert [layer.name for layer in told] == list(crossbar_layers(model))
    assert [layer.sums for layer in told if layer.path != native.TENSOR] == ran
    assert all((layer.why is None) == (layer.path == path != native.TENSOR) for layer in told)


def test_an_uncalibrated_network_is_refused(make_chip):
    model, _ = to_crossbar(network(), make_chip(), example=torch.randn(2, 4, 8, 8))
    with pytest.raises(ConversionError, match="range unknown"):
        explain(model)


def test_the_summary_counts_paths_and_names_what_is_left():
    layers = [
        LayerPath("a", "avx512", "words", None),
        LayerPath("b", "avx512", "bytes", None),
        LayerPath("c", native.TENSOR, "one integer product", "exact"),
        LayerPath("d", native.TENSOR, "tensors of float32", "too wide"),
    ]
    assert summary(layers) == (
        "2 of 4 layers on path avx512; 1 of 4 layers as one integer product: c; 1 of 4 layers fall back to tensors: d"
    )
    assert summary(layers[:2]) == "2 of 2 layers on path avx512"
    assert [layer.falls_back for layer in layers] == [False, False, False, True]
