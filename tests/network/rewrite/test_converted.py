"""Networks whose modules hide products, on a chip."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.overrides import TorchFunctionMode

from bitline.chip.description import Chip
from bitline.cost import price
from bitline.errors import ConversionError
from bitline.network.products import Products, Running, slow_attention
from bitline.nn import calibrate, placement, program, to_crossbar
from bitline.nn.layer import CrossbarLayer


def chip(make_chip) -> Chip:
    return make_chip(
        crossbar={"rows": 64, "cols": 64}, inputs={"bits": 8}, weights={"bits": 8}, adc={"policy": "lossless"}
    )


def randomized(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def given(model: nn.Module, x: object) -> object:
    return model(**x) if isinstance(x, dict) else model(*x) if isinstance(x, tuple) else model(x)


def tensor(answer: object) -> Tensor:
    return answer if isinstance(answer, Tensor) else tensor(answer[0])


def macs(model: nn.Module, x: object) -> int:
    """Multiplications of one pass, counted by PyTorch's own dispatch, without any report."""
    with torch.no_grad(), slow_attention(), Products(Running()) as products:
        given(model, x)
    return sum(products.macs.values())


def converts(model: nn.Module, make_chip, x: object, *, float_error: float = 1e-5, error: float = 0.1):
    """Convert, compare with the network as it was, in floating point and on the chip, and count all multiplications."""
    with torch.no_grad(), slow_attention():
        expected = tensor(given(model, x))
    converted, report = to_crossbar(model, chip(make_chip), example=x)
    layers = [m for m in converted.modules() if isinstance(m, CrossbarLayer)]
    for layer in layers:
        layer.mode = "float"
    with torch.no_grad():
        assert float((tensor(given(converted, x)) - expected).norm() / expected.norm()) < float_error
    for layer in layers:
        layer.mode = "chip"
    calibrate(converted, [(x, None) if isinstance(x, tuple) else x])
    with torch.no_grad():
        on_chip = tensor(given(converted, x))
    assert float((on_chip - expected).norm() / expected.norm()) < error
    assert not torch.equal(on_chip, expected)
    return converted, report


def conserves(model: nn.Module, report, x: object, images: int) -> None:
    """Check that layers and what is digital make as many multiplications as the network did before."""
    ours = sum(p.matmul.macs for p in report.layers) + sum(d.macs for d in report.digital)
    assert ours * images == macs(model, x)


def names(report) -> list[str]:
    return [placed.matmul.name for placed in report.layers]


# Attention


def test_projections_of_an_encoder_layer_are_on_crossbars_and_products_of_activations_are_listed(make_chip):
    model, x = randomized(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)), torch.randn(2, 5, 8)
    converted, report = converts(model, make_chip, x)
    assert names(report) == ["self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2"]
    assert report.rewritten == {"self_attn": "projections are linear layers, products of activations stay digital"}
    assert [(d.name, d.op, d.macs) for d in report.digital if d.macs] == [
        ("self_attn", "scaled_dot_product_attention", 2 * 5 * 5 * 8)
    ]
    assert isinstance(converted.self_attn, nn.MultiheadAttention)
    conserves(model, report, x, 2)
    assert price(placement(converted)).macs == 5 * (4 * 64 + 2 * 128) + 2 * 5 * 5 * 8


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_a_whole_encoder_with_padding_answers_on_crossbars(make_chip, nested: bool, batch_first: bool):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
    model = randomized(nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested))
    hidden = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    x = {"src": torch.randn(2, 5, 8), "src_key_padding_mask": hidden}
    if not batch_first:
        x = {"src": torch.randn(5, 5, 8), "src_key_padding_mask": torch.zeros(5, 5, dtype=torch.bool)}
    _, report = converts(model, make_chip, x)
    assert len(report.rewritten) == 2
    assert len(names(report)) == 8


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_a_whole_transformer_answers_on_crossbars(make_chip):
    model = randomized(nn.Transformer(8, 2, 1, 1, 16, batch_first=True))
    x = (torch.randn(2, 5, 8), torch.randn(2, 4, 8))
    _, report = converts(model, make_chip, x)
    assert "decoder.layers.0.self_attn.in_proj" in names(report)
    assert {f"decoder.layers.0.multihead_attn.{each}_proj" for each in ("q", "k", "v", "out")} <= set(names(report))
    conserves(model, report, x, 2)


def test_without_an_example_projections_are_three(make_chip):
    report = to_crossbar(nn.MultiheadAttention(8, 2).eval(), chip(make_chip)).report
    assert names(report) == ["q_proj", "k_proj", "v_proj", "out_proj"]


def test_layers_of_attention_train_on_the_chip(make_chip):
    model, x = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 5, 8)
    converted, _ = to_crossbar(model, chip(make_chip), example=x)
    calibrate(converted, [x])
    converted.train()
    converted(x).square().sum().backward()
    for name in ("in_proj", "out_proj"):
        layer = converted.self_attn.get_submodule(name)
        assert layer.training
        assert bool((layer.weight.grad != 0).any())


def test_biases_that_begin_at_zero_are_no_obstacle(make_chip):
    model = nn.Sequential(nn.LayerNorm(8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)).eval()
    assert not bool(model[1].self_attn.in_proj_bias.any())
    report = to_crossbar(model, chip(make_chip), example=torch.randn(2, 5, 8)).report
    assert list(report.rewritten) == ["1.self_attn"]


# Recurrent networks


class Sequence(nn.Module):
    """A recurrent network and a layer that reads its last result."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.fc = network, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.network.flatten_parameters()
        return self.fc(self.network(x)[0][:, -1])


@pytest.mark.parametrize(
    ("network", "width"),
    [
        (nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True), 12),
        (nn.LSTM(8, 6, batch_first=True, proj_size=3), 3),
        (nn.GRU(8, 6, batch_first=True), 6),
        (nn.RNN(8, 6, batch_first=True, nonlinearity="relu"), 6),
    ],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
def test_projections_of_recurrent_networks_are_on_crossbars(make_chip, network: nn.Module, width: int):
    model, x = randomized(Sequence(network, width)), torch.randn(2, 5, 8)
    converted, report = converts(model, make_chip, x)
    assert list(report.rewritten) == ["network"]
    assert report.digital == ()
    first = report.layers[0].matmul
    assert (first.name, first.positions) == ("network.ih_l0", 5)
    assert isinstance(converted.network, type(network))
    conserves(model, report, x, 2)


def test_a_cell_called_step_by_step_is_on_crossbars(make_chip):
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.fc = nn.LSTMCell(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return self.fc(state[0])

    model, x = randomized(Steps()), torch.randn(2, 5, 8)
    _, report = converts(model, make_chip, x)
    assert [(p.matmul.name, p.matmul.positions) for p in report.layers] == [("cell.ih", 5), ("cell.hh", 5), ("fc", 1)]
    assert report.digital == ()


# Transposed convolutions


def test_a_transposed_convolution_is_on_crossbars_with_the_multiplications_that_it_has(make_chip):
    model = randomized(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2)))
    x = torch.rand(2, 3, 6, 6)
    converted, report = converts(model, make_chip, x)
    assert names(report) == ["0", "2.phases.0"]
    assert report.digital == ()
    assert isinstance(converted[2], nn.ConvTranspose2d)
    conserves(model, report, x, 2)


def test_what_a_cropped_output_adds_is_its_border(make_chip):
    model = randomized(nn.Sequential(nn.ConvTranspose2d(8, 4, 4, 2, 1)))
    _, report = converts(model, make_chip, torch.rand(2, 8, 6, 6))
    assert report.layers[0].matmul.macs == 7 * 7 * (8 * 2 * 2) * (4 * 2 * 2)  # 6 x 6 without it


# Weights that are computed


@pytest.mark.parametrize(
    ("compute", "kind"),
    [
        (parametrizations.weight_norm, "WeightNorm"),
        (parametrizations.spectral_norm, "SpectralNorm"),
        (parametrizations.orthogonal, "Orthogonal"),
        (spectral_norm, "SpectralNorm"),
        (weight_norm, "WeightNorm"),
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "L1Unstructured"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_computed_weights_are_computed_once(make_chip, compute, kind: str):
    torch.manual_seed(0)
    model = nn.Sequential(compute(nn.Linear(8, 8)), nn.ReLU(), compute(nn.Linear(8, 4))).eval()
    x = torch.randn(4, 8)
    model(x)
    keys = list(model.state_dict())
    converted, report = converts(model, make_chip, x)
    assert names(report) == ["0", "2"]
    assert report.rewritten["2"] == f"its weights are plain, computed once from {kind}"
    assert torch.equal(converted[0].weight, model[0].weight)
    assert {"0.weight", "0.bias"} <= set(converted.state_dict())
    assert list(model.state_dict()) == keys
    converted.train()(x).sum().backward()
    assert converted[0].weight.grad is not None
    again = pickle.loads(pickle.dumps(converted.eval()))
    assert torch.equal(again(x), converted(x))


def test_a_recurrent_network_with_computed_weights_is_rewritten_too(make_chip):
    network = parametrizations.weight_norm(nn.LSTM(8, 6, batch_first=True), "weight_hh_l0")
    model = Sequence(network, 6).eval()
    _, report = converts(model, make_chip, torch.randn(2, 5, 8))
    assert report.rewritten["network"].startswith("its weights are plain, computed once from WeightNorm; projections")
    assert report.digital == ()


# Functions called with a layer's weights


class Windows(nn.Module):
    """Attention that calls functions with the weights of its layers."""

    def __init__(self, bias: str) -> None:
        super().__init__()
        self.kind = bias
        self.qkv = nn.Linear(8, 24, bias in ("own", "changed", "none"))
        self.proj = nn.Linear(8, 8)
        self.q = nn.Parameter(torch.randn(8))

    def bias(self) -> Tensor | None:
        if self.kind == "own":
            return self.qkv.bias
        if self.kind == "changed":
            bias = self.qkv.bias.clone()
            bias[8:16].zero_()
            return bias
        if self.kind == "joined":
            return torch.cat([self.q, torch.zeros(8), self.q])
        return None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.linear(x, self.qkv.weight, self.bias()).chunk(3, -1)
        y = (q @ k.mT).softmax(-1) @ v
        return F.linear(input=y, weight=self.proj.weight, bias=self.proj.bias)


@pytest.mark.parametrize("bias", ["own", "changed", "joined", "none"])
def test_code_that_multiplies_by_a_layers_weights_calls_the_layer(make_chip, bias: str):
    model = randomized(nn.Sequential(nn.Linear(8, 8), Windows(bias)))
    x = torch.randn(2, 5, 8)
    converted, report = converts(model, make_chip, x)
    assert names(report) == ["0", "1.qkv", "1.proj"]
    assert report.rewritten == {"1": "qkv, proj called where its code multiplied by their weights"}
    assert isinstance(converted[1], Windows)
    conserves(model, report, x, 2)
    for each in (copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):
        assert torch.equal(each(x), converted(x))
    converted.train()(x).square().sum().backward()
    assert bool((converted[1].qkv.weight.grad != 0).any())
    if bias == "joined":
        assert bool((converted[1].q.grad != 0).any())


class StaticPadding(nn.Conv2d):
    """A convolution that pads by itself."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1, 0, 1))
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Doubled(nn.Linear):
    """A linear layer that does something before and after."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(2 * input) + 1


class Kernels(nn.Module):
    """Products with parameters of its own, in functions."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.shift = nn.Parameter(torch.randn(4, 2, 3)), nn.Parameter(torch.randn(4))
        self.kernel, self.out = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv1d(x, self.mix, self.shift, padding=1, groups=2).mean(-1)
        y = F.linear(F.linear(y, self.kernel), self.kernel.T)
        return F.linear(F.linear(y, self.kernel), self.out)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_with_a_forward_of_its_own_that_calls_a_function_with_its_weights_is_on_crossbars(
    make_chip, bias: bool
):
    conv, fc = StaticPadding(3, 4, 2, 2, groups=1, bias=bias), Doubled(4, 3, bias)
    model = nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), fc)
    model = randomized(model)
    x = torch.rand(2, 3, 7, 7)
    converted, report = converts(model, make_chip, x)
    assert names(report) == ["0.weight_layer", "5.weight_layer"]
    assert report.folded == {"1": "0.weight_layer"}
    assert report.digital == ()
    assert isinstance(converted[0], StaticPadding)
    assert converted[0].weight is converted[0].weight_layer.weight
    conserves(model, report, x, 2)
    for each in (copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):
        assert torch.equal(each(x), converted(x))
    assert names(to_crossbar(model, chip(make_chip), example=x, keep_digital=["0"]).report) == ["5.weight_layer"]
    kept = to_crossbar(model, chip(make_chip), example=x, keep_digital=lambda name, _: name == "5").report
    assert names(kept) == ["0.weight_layer"]


def test_parameters_that_code_multiplies_by_are_layers(make_chip):
    model, x = randomized(nn.Sequential(Kernels(), nn.Linear(3, 3))), torch.randn(2, 4, 5)
    converted, report = converts(model, make_chip, x)
    assert names(report) == ["0.mix_layer", "0.kernel_layer", "0.out_layer", "1"]
    assert report.rewritten == {"0": "layers of its parameters mix, kernel, out"}
    assert [d.op for d in report.digital if d.macs] == ["linear"]  # by the transposed kernel
    conserves(model, report, x, 2)
    converted.train()(x).square().sum().backward()
    assert all(bool((p.grad != 0).any()) for p in converted.parameters())


def test_a_network_and_a_part_of_it_may_both_call_functions(make_chip):
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.fc = Windows("own"), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.part(x), self.fc.weight, self.fc.bias)

    _, report = converts(randomized(Outer()), make_chip, torch.randn(2, 5, 8))
    assert names(report) == ["part.qkv", "part.proj", "fc"]


def test_a_convolution_called_with_another_stride_later_is_refused(make_chip):
    class Strides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.stride = nn.Parameter(torch.randn(4, 3, 2, 2)), 1

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.kernel, stride=self.stride)

    x = torch.rand(2, 3, 6, 6)
    converted, _ = converts(nn.Sequential(Strides()), make_chip, x)
    converted[0].stride = 2
    with pytest.raises(ConversionError, match="it was put on crossbars with"):
        converted(x)


def test_the_mode_ends_with_the_call_also_when_it_fails(make_chip):
    model = randomized(Windows("own"))
    converted, _ = to_crossbar(model, chip(make_chip), example=torch.randn(2, 5, 8))
    with pytest.raises(Exception, match="features"):
        converted(torch.randn(2, 5, 7))

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return "seen"

    ones = torch.ones(2, 2)
    with Seen():
        assert F.linear(ones, ones) == "seen"


# What stays


def test_names_may_be_kept_digital(make_chip):
    model, x = randomized(Sequence(nn.LSTM(8, 6, batch_first=True), 6)), torch.randn(2, 5, 8)
    report = to_crossbar(model, chip(make_chip), example=x, keep_digital=["network"]).report
    assert names(report) == ["fc"]
    assert [(d.name, d.why) for d in report.digital] == [("network", "kept digital as asked")]
    report = to_crossbar(model, chip(make_chip), example=x, keep_digital=["network.hh_l0"]).report
    assert names(report) == ["network.ih_l0", "fc"]
    with pytest.raises(ConversionError, match="keep_digital names 'nothing'"):
        to_crossbar(model, chip(make_chip), example=x, keep_digital=["nothing"])


def test_nothing_is_rewritten_where_that_is_asked_for(make_chip):
    model, x = randomized(Sequence(nn.LSTM(8, 6, batch_first=True), 6)), torch.randn(2, 5, 8)
    report = to_crossbar(model, chip(make_chip), example=x, rewrite=False).report
    assert (names(report), report.rewritten) == (["fc"], {})
    conserves(model, report, x, 2)


def test_code_that_looks_at_what_is_inside_keeps_its_module(make_chip):
    class Looks(Sequence):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1 + len(self.network._flat_weights))

    model, x = randomized(Looks(nn.LSTM(8, 6, batch_first=True), 6)), torch.randn(2, 5, 8)
    report = to_crossbar(model, chip(make_chip), example=x).report
    assert (names(report), report.rewritten) == (["fc"], {})
    assert report.digital[0].why.startswith("the network answers otherwise when it is rewritten")


def test_weights_of_another_module_are_not_made_anew(make_chip):
    model = nn.Sequential(nn.ConvTranspose1d(4, 4, 2, 2), nn.ConvTranspose1d(4, 4, 2, 2), nn.Conv1d(4, 2, 1)).eval()
    model[1].weight = model[0].weight
    report = to_crossbar(model, chip(make_chip), example=torch.rand(2, 4, 5)).report
    assert names(report) == ["2"]
    assert {d.why for d in report.digital} == {"its weights are another module's too"}


def test_a_network_that_is_such_a_module_itself_is_rewritten(make_chip):
    for model, x in (
        (nn.ConvTranspose1d(4, 4, 2, 2), torch.rand(2, 4, 5)),
        (nn.GRU(8, 6, batch_first=True), torch.rand(2, 5, 8)),
        (nn.MultiheadAttention(8, 2, batch_first=True), (torch.rand(2, 5, 8),) * 3),
    ):
        _, report = converts(randomized(model), make_chip, x)
        assert list(report.rewritten) == [""]
        assert str(report).count("(model): ") >= 1


def test_what_is_rewritten_is_said_by_the_report(make_chip):
    model, x = randomized(Sequence(nn.LSTM(8, 6, batch_first=True), 6)), torch.randn(2, 5, 8)
    text = str(to_crossbar(model, chip(make_chip), example=x).report)
    assert "network: projections of inputs and states are linear layers, its cells stay" in text


def test_a_rewritten_network_is_programmed_copied_and_pickled(make_chip):
    model, x = randomized(Sequence(nn.LSTM(8, 6, batch_first=True), 6)), torch.randn(2, 5, 8)
    converted, _ = to_crossbar(model, chip(make_chip), example=x)
    calibrate(converted, [x])
    program(converted, 1)
    for each in (copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):
        assert torch.equal(each(x), converted(x))
    again, _ = to_crossbar(model, chip(make_chip), example=x)
    again.load_state_dict(converted.state_dict())
    assert torch.equal(again(x), converted(x))
