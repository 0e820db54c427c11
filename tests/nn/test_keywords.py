"""Each keyword of a layer of PyTorch takes effect on a chip, or the layer is named as one that stays off it."""

import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline import load_chip
from bitline.errors import ConversionError
from bitline.nn import calibrate, to_crossbar

# Integers of 8 bits are held at a scale of 1, so that an ideal chip answers what PyTorch does, exactly.
EXACT = load_chip(
    "rram-22nm",
    [
        "adc.policy=lossless",
        "cell.programming=ideal",
        "inputs.calibration=max",
        "weights.granularity=tensor",
        "weights.encoding=pair",
    ],
)
SIZES = {nn.Linear: (), nn.Conv1d: (13,), nn.Conv2d: (9, 11)}
OWN = {"self", "in_features", "out_features", "in_channels", "out_channels", "device"}
CONV = {
    "kernel_size": [1, 2, 4],
    "stride": [2, 3],
    "padding": [1, 2, "same", "valid"],
    "dilation": [2, 3],
    "groups": [2, 4],
    "bias": [False],
    "padding_mode": ["reflect", "replicate", "circular"],
    "dtype": [torch.float64],
}
UNEVEN = {"kernel_size": [(2, 3), (3, 1)], "stride": [(1, 2)], "padding": [(0, 2), (2, 1)], "dilation": [(1, 3)]}
KEYWORDS = {
    nn.Linear: {"bias": [False], "dtype": [torch.float64]},
    nn.Conv1d: CONV,
    nn.Conv2d: {key: [*values, *UNEVEN.get(key, [])] for key, values in CONV.items()},
}
ONE_BY_ONE = [(kind, key, value) for kind, keys in KEYWORDS.items() for key, values in keys.items() for value in values]
TOGETHER = [
    {"padding": "same", "kernel_size": 4},
    {"padding": "same", "kernel_size": 4, "dilation": 3, "padding_mode": "circular"},
    {"padding": "same", "kernel_size": 2, "padding_mode": "reflect", "groups": 2},
    {"padding": 2, "kernel_size": 3, "stride": 2, "padding_mode": "replicate", "groups": 4},
    {"padding": 3, "kernel_size": 3, "dilation": 2, "stride": 3, "bias": False},
    {"padding": "valid", "kernel_size": 2, "dilation": 4, "groups": 8},
]


def layer(kind: type[nn.Module], **keywords: object) -> nn.Module:
    """A layer of integers of 8 bits."""
    torch.manual_seed(0)
    given = {"kernel_size": 3, **keywords} if kind is not nn.Linear else keywords
    made = kind(8, 8, **given)
    with torch.no_grad():
        made.weight.copy_(torch.randint(-127, 128, made.weight.shape))
        made.weight.view(-1)[0] = 127
        if made.bias is not None:
            made.bias.copy_(torch.randint(-1000, 1000, made.bias.shape))
    return made


def inputs(kind: type[nn.Module], dtype: torch.dtype) -> Tensor:
    x = torch.randint(0, 256, (3, 8, *SIZES[kind]), generator=torch.Generator().manual_seed(1)).to(dtype)
    x.view(-1)[0] = 255
    return x


@torch.no_grad()
def both(kind: type[nn.Module], **keywords: object) -> tuple[Tensor, Tensor]:
    """What PyTorch and what the chip answers."""
    plain = layer(kind, **keywords)
    x = inputs(kind, plain.weight.dtype)
    model = to_crossbar(nn.Sequential(plain), EXACT, example=x, allow_digital=False).model
    calibrate(model, [x])
    assert float(model[0].ranges.input_scale) == 1
    return plain(x), model(x)


@pytest.mark.parametrize("kind", KEYWORDS)
def test_all_keywords_of_pytorch_are_known_here(kind):
    assert set(inspect.signature(kind).parameters) - OWN == set(KEYWORDS[kind])


@pytest.mark.parametrize(("kind", "key", "value"), ONE_BY_ONE)
def test_a_keyword_takes_effect_as_in_pytorch(kind, key, value):
    more = {"padding": 2} if key == "padding_mode" else {}
    expected, got = both(kind, **{key: value}, **more)
    assert got.dtype == expected.dtype
    assert torch.equal(got, expected)
    if (key, value) != ("padding", "valid"):  # which is what there is without padding
        default = both(kind, **more)[1]
        assert default.dtype != got.dtype or not (default.shape == got.shape and torch.equal(default, got))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
@pytest.mark.parametrize("keywords", TOGETHER)
def test_keywords_take_effect_together(kind, keywords):
    expected, got = both(kind, **keywords)
    assert torch.equal(got, expected)


OFF = {
    "Conv3d": (lambda: nn.Conv3d(2, 2, 3, padding=1), (2, 4, 4, 4)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 2, 1, stride=2), (2, 6)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 2, 2, stride=3, groups=2), (2, 6, 6)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 2, 3, dilation=2), (2, 4, 4, 4)),
    "MultiheadAttention": (lambda: Attention(add_zero_attn=True), (5, 8)),
    "Bilinear": (lambda: Both(), (8,)),
    "Embedding": (lambda: nn.Sequential(Whole(), nn.Embedding(4, 8)), (5,)),
}


class Attention(nn.Module):
    """Attention of PyTorch, with keywords."""

    def __init__(self, **keywords: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **keywords)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Both(nn.Module):
    """A product of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Bilinear(8, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, x)


class Whole(nn.Module):
    """Numbers from 0 to 1 as whole ones from 0 to 3."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 3.99).long()


@pytest.mark.parametrize("kind", OFF)
def test_a_layer_that_no_chip_takes_is_named_and_stays_as_it_is(kind):
    torch.manual_seed(0)
    make, shape = OFF[kind]
    other, x = make(), torch.rand(2, *shape)
    size = other(x).flatten(1).shape[1]
    net = nn.Sequential(other, nn.Flatten(), nn.Linear(size, 3)).eval()
    model, report = to_crossbar(net, EXACT, example=x)
    named = {d.op: d.why for d in report.digital}
    assert named[kind]
    assert torch.equal(model[0](x), other(x))
    with pytest.raises(ConversionError, match=kind):
        to_crossbar(net, EXACT, example=x, allow_digital=False)


BLOCK = {
    "norm_first": True,
    "activation": "gelu",
    "batch_first": True,
    "bias": False,
    "layer_norm_eps": 0.5,
    "dim_feedforward": 24,
}
CALLS = {
    "src_mask": lambda: torch.triu(torch.ones(5, 5, dtype=torch.bool), 1),
    "src_key_padding_mask": lambda: torch.tensor([[False, False, True, True, False]] * 5),
}


@torch.no_grad()
@pytest.mark.parametrize("key", ["none", *BLOCK, *CALLS])
def test_keywords_of_a_transformer_block_take_effect(key):
    chip = load_chip(
        "rram-22nm", ["adc.policy=lossless", "cell.programming=ideal", "inputs.bits=12", "weights.bits=12"]
    )
    x = torch.randn(5, 5, 8, generator=torch.Generator().manual_seed(1))

    def block(**keywords: object) -> nn.Module:
        torch.manual_seed(0)
        return nn.TransformerEncoderLayer(8, 2, **{"dim_feedforward": 16, **keywords}).eval()

    plain = block(**{key: BLOCK[key]} if key in BLOCK else {})
    given = {key: CALLS[key]()} if key in CALLS else {}
    model = to_crossbar(plain, chip, example=x).model
    calibrate(model, [{"src": x, **given}])
    expected, got = plain(x, **given), model(x, **given)
    # The largest input of a layer may be clipped.
    assert float((got - expected).square().mean().sqrt()) < 0.004
    if key != "none":
        assert float((expected - block()(x)).abs().max()) > 0.05


@torch.no_grad()
def test_a_product_within_a_function_is_named():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            q = self.query(x)
            return F.scaled_dot_product_attention(q, x, x, is_causal=True, scale=0.3)

    x = torch.rand(2, 5, 8)
    _, report = to_crossbar(Scaled(), EXACT, example=x)
    assert [(d.name, d.op) for d in report.digital] == [("(model)", "scaled_dot_product_attention")]
