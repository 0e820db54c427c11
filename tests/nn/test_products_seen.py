"""Every product off the crossbars is listed with its multiplications, however it is called."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.errors import ConversionError
from bitline.network.digital import DigitalOperation
from bitline.nn import to_crossbar
from network_samples import ROWS, Code, chip

PRODUCTS = {
    "aten.mm": lambda s, x: torch.ops.aten.mm(x, s.w),
    "aten.linear": lambda s, x: torch.ops.aten.linear(x, s.w),
    "addmm_": lambda s, x: x.new_zeros(2, 8).addmm_(x, s.w),
    "baddbmm_": lambda s, x: x.new_zeros(1, 2, 8).baddbmm_(x[None], s.w[None])[0],
    "sparse.mm": lambda s, x: torch.sparse.mm(s.w.to_sparse(), x.T).T,
    "chain_matmul": lambda s, x: torch.chain_matmul(x, s.w),
    "vecdot": lambda s, x: torch.linalg.vecdot(x[:, None], s.w),
    "cdist": lambda s, x: torch.cdist(x, s.w),
    "convolution": lambda s, x: torch.convolution(x[..., None], s.w[..., None], None, [1], [0], [1], False, [0], 1)[
        ..., 0
    ],
    "conv_tbc": lambda s, x: torch.conv_tbc(x[None], s.w[None], torch.zeros(8), 0)[0],
    "embedding_bag": lambda s, x: F.embedding_bag(
        torch.arange(8).repeat(2, 1), s.w, per_sample_weights=x.contiguous(), mode="sum"
    ),
    "multiply and sum": lambda s, x: (x[:, None] * s.w).sum(-1),
    "matmul": lambda s, x: x @ s.w,
    "einsum": lambda s, x: torch.einsum("bi,oi->bo", x, s.w),
    "vmap": lambda s, x: torch.vmap(lambda row: s.w @ row)(x),
    "bilinear": lambda s, x: F.bilinear(x, torch.ones(2, 1), s.w[..., None]),
    "tensordot": lambda s, x: torch.tensordot(x, s.w, 1),
    "multiply and mean": lambda s, x: (x[:, None] * s.w).mean(-1),
    "multiply, view and sum": lambda s, x: (x[:, None] * s.w).reshape(-1, 8).sum(-1).view(-1, 8),
    "multiply, cast and sum": lambda s, x: (x[:, None] * s.w).double().sum(-1).float(),
    "multiply and pool": lambda s, x: F.avg_pool1d(x[:, None] * s.w, 8)[..., 0],
    "divide and sum": lambda s, x: (x[:, None] / s.w).sum(-1),
    "column by column": lambda s, x: sum(x[:, i : i + 1] * s.w[i] for i in range(8)),
    "complex": lambda s, x: torch.complex(x, x).unsqueeze(1).mul(s.w).sum(-1).real,
}


@pytest.mark.filterwarnings("ignore:torch.chain_matmul is deprecated")
@pytest.mark.parametrize("kind", list(PRODUCTS))
def test_every_product_by_a_tensor_is_listed_and_counted(make_chip, kind):
    model = Code(lambda s, x: s.out(PRODUCTS[kind](s, x)), out=nn.Linear(8, 4))
    model.register_buffer("w", torch.randn(8, 8))
    with pytest.raises(ConversionError, match=r"^these operations stay digital: "):
        to_crossbar(model, chip(make_chip), example=ROWS, allow_digital=False)
    _, report = to_crossbar(model, chip(make_chip), example=ROWS)
    assert [(d.name, d.macs) for d in report.digital] == [("(model)", 64)]


def test_a_product_of_transforms_is_listed(make_chip):
    model = Code(lambda s, x: s.out(torch.fft.irfft(torch.fft.rfft(x) * s.w, n=8)), out=nn.Linear(8, 4))
    model.register_buffer("w", torch.randn(5))
    _, report = to_crossbar(model, chip(make_chip), example=ROWS)
    assert [(d.op, d.why) for d in report.digital] == [
        ("fft_rfft", "a transform, no product; it is not counted"),
        ("fft_irfft", "a transform, no product; it is not counted"),
    ]


def test_a_product_in_a_hook_is_listed(make_chip):
    model = nn.Sequential(nn.ReLU(), nn.Linear(8, 4))
    weight = torch.randn(8, 8)
    model[0].register_forward_hook(lambda _m, _x, y: y @ weight)
    _, report = to_crossbar(model, chip(make_chip), example=ROWS)
    assert [(d.op, d.macs) for d in report.digital] == [("matmul", 64)]


def test_a_recurrent_cell_that_is_called_as_a_function_is_listed(make_chip):
    def forward(s, x: Tensor) -> Tensor:
        return s.out(torch.lstm_cell(x, (x, x), s.w, s.w)[0])

    model = Code(forward, out=nn.Linear(8, 4))
    model.register_buffer("w", torch.randn(32, 8))
    _, report = to_crossbar(model, chip(make_chip), example=ROWS)
    assert [(d.op, d.macs) for d in report.digital] == [("lstm_cell", 2 * 32 * 8)]


@pytest.mark.filterwarnings("ignore")
def test_a_layer_of_packed_weights_is_listed(make_chip):
    plain = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    model = torch.ao.quantization.quantize_dynamic(plain, {"0"}, torch.qint8)
    x = torch.randn(2, 64)
    with pytest.raises(ConversionError, match=r"^these operations stay digital: 0 \(linear_dynamic\)"):
        to_crossbar(model, chip(make_chip), example=x, allow_digital=False)
    _, report = to_crossbar(model, chip(make_chip), example=x)
    assert report.digital == (
        DigitalOperation("0", "linear_dynamic", "called as a function, outside of a layer", 64 * 64),
    )


def test_attention_of_pytorch_is_listed_with_its_multiplications(make_chip):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    _, report = to_crossbar(layer, chip(make_chip), example=torch.randn(2, 5, 8), rewrite=False)
    attention = next(d for d in report.digital if d.name == "self_attn")
    assert attention.macs == 4 * 5 * 64 + 2 * 5 * 5 * 8
