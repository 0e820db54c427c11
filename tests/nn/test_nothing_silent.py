"""Networks that once were answered or priced wrongly without a word, each the smallest of its kind."""

import copy
import pickle
import types

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.chip.description import Chip
from bitline.cost import price
from bitline.errors import ConversionError
from bitline.network.digital import DigitalOperation
from bitline.nn import calibrate, placement, program, to_crossbar
from bitline.nn.layer import CrossbarLayer


class Code(nn.Module):
    """A network whose forward is given as a function."""

    def __init__(self, forward, **modules: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *x: Tensor) -> object:
        return self.run(self, *x)


class NormAct(nn.BatchNorm2d):
    """A batch norm and an activation in one, as timm's are."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        return self.act(
            F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        )


class NormOfDoubles(nn.BatchNorm2d):
    """One that is no batch norm and then something."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.square())


def settled(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


def plain(converted: nn.Module) -> nn.Module:
    for module in converted.modules():
        if isinstance(module, CrossbarLayer):
            module.mode = "float"
    return converted


def agrees(model: nn.Module, make_chip, *x: Tensor, example: bool = True):
    """Convert, and check that plain layers inside the converted network answer as the network does."""
    given = x if len(x) > 1 else x[0]
    converted, report = to_crossbar(model, chip(make_chip), example=given if example else None)
    plain(converted)
    with torch.no_grad():
        torch.testing.assert_close(converted(*x), model(*x), rtol=1e-4, atol=1e-4)
    return converted, report


def chip(make_chip) -> Chip:
    return make_chip(crossbar={"rows": 64, "cols": 64})


IMAGE = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


# Batch norms


@pytest.mark.parametrize("example", [True, False])
@pytest.mark.parametrize("zero", [True, False])
def test_an_activation_inside_a_batch_norm_stays(make_chip, example, zero):
    model = settled(nn.Sequential(nn.Conv2d(3, 8, 3), NormAct(8), nn.Conv2d(8, 4, 3)))
    if zero:
        nn.init.zeros_(model[1].weight)
    converted, report = agrees(model, make_chip, IMAGE, example=example)
    assert report.folded == {"1": "0"}
    assert isinstance(converted[1], NormAct)
    assert [d.name for d in report.digital] == []
    nn.init.normal_(converted[0].weight)  # weights that come later meet the activation too
    converted.train()
    with torch.no_grad():
        assert bool((converted[1](torch.randn(2, 8, 4, 4)) >= 0).all())
        torch.testing.assert_close(converted[1](torch.full((2, 8, 4, 4), 3.0)), torch.full((2, 8, 4, 4), 3.0))


def test_a_batch_norm_that_does_more_before_it_normalizes_stays(make_chip):
    model = settled(nn.Sequential(nn.Conv2d(3, 8, 3), NormOfDoubles(8), nn.Conv2d(8, 4, 3)))
    _, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {}
    assert report.digital[0].why == "NormOfDoubles does more than normalize, and not after it, or has hooks"


def test_a_batch_norm_with_a_hook_stays(make_chip):
    model = settled(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)))
    model[1].register_forward_hook(lambda _m, _x, y: y + 1)
    _, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {}


def test_a_batch_norm_that_runs_on_one_of_two_ways_stays(make_chip):
    def forward(s, x: Tensor) -> Tensor:
        y = s.c(x)
        y = s.n(y) if x.mean() > 0 else y
        return s.o(F.relu(y).mean((2, 3)))

    model = settled(Code(forward, c=nn.Conv2d(3, 8, 3), n=nn.BatchNorm2d(8), o=nn.Linear(8, 4)))
    converted, report = agrees(model, make_chip, IMAGE.abs())
    assert report.folded == {}
    assert [(d.name, d.why) for d in report.digital] == [
        ("n", "the network reads values, and may go another way for others")
    ]
    with torch.no_grad():
        torch.testing.assert_close(converted(-IMAGE.abs()), model(-IMAGE.abs()), rtol=1e-4, atol=1e-4)


def test_a_decision_of_a_neighbour_leaves_a_fold_alone(make_chip):
    def forward(s, x: Tensor) -> Tensor:
        return s.a(x) if x.mean() > 100 else s.b(x)

    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    gate = Code(forward, a=nn.ReLU(), b=nn.Sigmoid())
    _, report = agrees(settled(nn.Sequential(block, gate, nn.Conv2d(8, 4, 3))), make_chip, IMAGE)
    assert report.folded == {"0.1": "0.0"}


def test_a_result_that_another_head_reads_in_training_keeps_its_batch_norm(make_chip):
    def forward(s, x: Tensor) -> object:
        y = s.c(x)
        z = s.o(F.relu(s.n(y)).mean((2, 3)))
        return (z, s.aux(y.mean((2, 3)))) if s.training else z

    parts = {"c": nn.Conv2d(3, 8, 3), "n": nn.BatchNorm2d(8), "o": nn.Linear(8, 4), "aux": nn.Linear(8, 4)}
    model = settled(Code(forward, **parts))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    converted, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {}
    assert {d.name: d.why for d in report.digital} == {
        "n": "the result of c is read elsewhere too in training",
        "aux": "never ran on the example",
    }
    assert all(torch.equal(buffer, before[name]) for name, buffer in converted.named_buffers() if name in before)


@pytest.mark.parametrize("read", [lambda n: n.eps, lambda n: n.num_features])
def test_settings_of_a_folded_batch_norm_can_be_read(make_chip, read):
    def forward(s, x: Tensor) -> Tensor:
        return s.o(F.relu(s.n(s.c(x))).mean((2, 3)) + read(s.n))

    model = settled(Code(forward, c=nn.Conv2d(3, 8, 3), n=nn.BatchNorm2d(8), o=nn.Linear(8, 4)))
    _, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {"n": "c"}


def test_a_batch_norm_whose_numbers_are_read_elsewhere_stays(make_chip):
    def forward(s, x: Tensor) -> Tensor:
        return s.o(F.relu(s.n(s.c(x))).mean((2, 3)) * s.n.weight)

    model = settled(Code(forward, c=nn.Conv2d(3, 8, 3), n=nn.BatchNorm2d(8), o=nn.Linear(8, 4)))
    _, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {}
    assert report.digital[0].why == "the network answers otherwise when it is folded"


def test_a_fold_inside_a_branch_that_begins_silent_is_checked(make_chip):
    class Sneaky(nn.Module):
        """Reads the convolution's result behind everybody's back."""

        def forward(self, y: Tensor) -> Tensor:
            return y + y.detach().numpy().mean() if not y.is_meta else y

    def forward(s, x: Tensor) -> Tensor:
        y = s.c(x)
        return x.mean() + s.gamma * (s.n(y).mean() + s.sneaky(y).mean())

    model = settled(Code(forward, c=nn.Conv2d(3, 8, 3), n=nn.BatchNorm2d(8), sneaky=Sneaky()))
    model.gamma = nn.Parameter(torch.zeros(2))
    _, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {}


def test_two_hundred_folds_are_checked_in_a_few_passes(make_chip):
    """A wrong fold among many is found by halves, not by a pass for each."""
    passes = []

    def forward(s, x: Tensor) -> Tensor:
        passes.append(1)
        for conv, norm in zip(s.convs, s.norms, strict=True):
            x = x + norm(conv(x))
        return x * s.norms[7].weight

    convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(64))
    model = settled(Code(forward, convs=convs, norms=nn.ModuleList(nn.BatchNorm2d(3) for _ in range(64))))
    model.run = forward
    _, report = agrees(nn.Sequential(model), make_chip, IMAGE[..., :3])
    assert len(report.folded) == 63
    assert "0.norms.7" not in report.folded
    assert len(passes) < 32


# Counts per image


def counted(model: nn.Module, make_chip, *x: Tensor) -> int:
    converted, _ = to_crossbar(model, chip(make_chip), example=x if len(x) > 1 else x[0])
    return price(placement(converted)).macs


@pytest.mark.parametrize("images", [1, 2, 5])
def test_vectors_in_the_batch_axis_are_counted_for_one_image(make_chip, images):
    model = Code(lambda s, x: s.f(x.flatten(0, 1)).view(len(x), -1), f=nn.Linear(8, 16))
    assert counted(model, make_chip, torch.randn(images, 100, 8)) == 100 * 8 * 16


@pytest.mark.parametrize("images", [1, 4, 16])
def test_a_sequence_in_the_first_axis_is_counted_for_one_image(make_chip, images):
    model = Code(lambda s, x: s.f(x.transpose(0, 1)).transpose(0, 1), f=nn.Linear(8, 16))
    assert counted(model, make_chip, torch.randn(images, 12, 8)) == 12 * 8 * 16


@pytest.mark.parametrize("images", [1, 3])
def test_windows_of_a_convolution_are_counted_for_one_image(make_chip, images):
    def forward(s, x: Tensor) -> Tensor:
        windows = x.unfold(2, 3, 3).unfold(3, 3, 3).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        return s.c(windows).view(len(x), -1)

    model = Code(forward, c=nn.Conv2d(3, 8, 2))
    assert counted(model, make_chip, torch.randn(images, 3, 9, 9)) == 9 * 4 * 8 * 12


@pytest.mark.parametrize("images", [1, 4])
def test_what_does_not_depend_on_the_batch_is_counted_whole(make_chip, images):
    model = Code(lambda s, x: s.f(x) + s.f(s.table), f=nn.Linear(8, 8))
    model.register_buffer("table", torch.randn(1, 8))
    assert counted(model, make_chip, torch.randn(images, 8)) == 2 * 8 * 8

    other = Code(lambda s, x: x + s.f(s.table).mean(0), f=nn.Linear(8, 8))
    other.register_buffer("table", torch.randn(49, 8))
    assert counted(other, make_chip, torch.randn(images, 8)) == 49 * 8 * 8


def test_rows_that_are_routed_are_counted_as_they_come(make_chip):
    def forward(s, x: Tensor) -> Tensor:
        y, some = s.a(x), x[:, 0] > 0
        return y.index_add(0, some.nonzero().flatten(), s.b(x[some]))

    x = torch.randn(8, 8)
    x[:, 0] = torch.tensor([1.0, 1, 1, -1, -1, -1, -1, 1])
    model = Code(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8))
    assert counted(model, make_chip, x) == 64 + 64 * 1  # half of the images reach b, and no position is halved


def test_noise_of_a_sequence_first_layer_does_not_depend_on_the_batch(make_chip):
    noisy = make_chip(cell={"read_noise": {"kind": "proportional", "sigma": 0.2}})
    x = torch.rand(4, 6, 8)
    model = Code(lambda s, x: s.f(x.transpose(0, 1)).transpose(0, 1), f=nn.Linear(8, 16))
    converted, _ = to_crossbar(model, noisy, example=x[:2])
    calibrate(converted, [x])
    program(converted, 3)
    with torch.no_grad():
        together = converted(x)
        program(converted, 3)
        alone = torch.cat([converted(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


# Layers that are more than their class


def test_a_forward_that_was_put_on_a_layer_is_not_dropped(make_chip):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    model[0].forward = types.MethodType(lambda s, x: 3 * F.linear(x, s.weight, s.bias) + 1, model[0])
    _, report = agrees(model, make_chip, ROWS)
    assert [(d.name, d.op, d.why) for d in report.digital] == [
        ("0", "Linear", "its forward was replaced on this very layer")
    ]
    assert report.digital[0].macs == 64


class Mine(nn.Linear):
    """A linear layer with a class and attributes of its own, and no forward."""

    gain = 2.0


@pytest.mark.parametrize(
    "read",
    [
        lambda layer: float(isinstance(layer, Mine)),
        lambda layer: getattr(layer, "gain", 1.0),
        lambda layer: layer.offset,
    ],
)
def test_a_layer_keeps_its_class_and_attributes(make_chip, read):
    model = Code(lambda s, x: s.a(x) * read(s.a), a=Mine(8, 4))
    model.a.offset = 0.5
    converted, report = agrees(model, make_chip, ROWS)
    assert [p.matmul.name for p in report.layers] == ["a"]
    calibrate(converted, [ROWS])
    for again in (copy.deepcopy(converted.a), pickle.loads(pickle.dumps(converted.a))):
        assert isinstance(again, Mine)
        assert isinstance(again, CrossbarLayer)
        assert (again.offset, type(again).__name__) == (0.5, "Mine")
        torch.testing.assert_close(again(ROWS), converted.a(ROWS), rtol=0, atol=0)


def test_a_layer_whose_very_class_is_asked_for_stays_digital(make_chip):
    model = Code(lambda s, x: s.b(s.a(x) * (2 if type(s.a) is nn.Linear else 1)), a=nn.Linear(8, 8), b=nn.Linear(8, 4))
    _, report = agrees(model, make_chip, ROWS)
    assert [p.matmul.name for p in report.layers] == ["b"]
    assert [(d.name, d.why) for d in report.digital] == [
        ("a", "the network answers otherwise with another class in its place, which its code looks at")
    ]


@pytest.mark.parametrize(("layer", "x"), [(nn.Linear(8, 4), ROWS[0]), (nn.Conv2d(3, 4, 3), IMAGE[0])])
def test_a_layer_takes_an_input_without_a_batch(make_chip, layer, x):
    model = Code(lambda s, xs: torch.stack([s.f(x) for x in xs]), f=layer)
    converted, _ = agrees(model, make_chip, torch.stack([x, -x, 2 * x]))
    calibrate(converted, [torch.stack([x])])
    for module in converted.modules():
        if isinstance(module, CrossbarLayer):
            module.mode = "chip"
    with torch.no_grad():
        assert converted.f(x).shape == model.f(x).shape
        torch.testing.assert_close(converted.f(x), converted.f(x[None])[0], rtol=0, atol=0)


# Products

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
    _, report = to_crossbar(layer, chip(make_chip), example=torch.randn(2, 5, 8))
    attention = next(d for d in report.digital if d.name == "self_attn")
    assert attention.macs == 4 * 5 * 64 + 2 * 5 * 5 * 8


# What is handed in


def test_the_example_and_the_data_stay_as_they_are(make_chip):
    model = Code(lambda s, x: s.a(x.mul_(2)), a=nn.Linear(8, 4))
    x = ROWS.clone()
    converted, _ = to_crossbar(model, chip(make_chip), example=x)
    assert torch.equal(x, ROWS)
    data = [x, x]
    calibrate(converted, data, in_turn=True)
    assert torch.equal(x, ROWS)


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_part_is_listed_and_the_rest_converted(make_chip):
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    model = nn.Sequential(nn.Linear(8, 8), scripted, nn.Linear(8, 4))
    converted, report = agrees(model, make_chip, ROWS)
    assert [p.matmul.name for p in report.layers] == ["0", "2"]
    assert sum(d.macs for d in report.digital) == 64
    calibrate(converted, [ROWS])


def test_a_network_that_is_converted_in_inference_mode_can_be_trained(make_chip):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(196, 4)).eval()
    with torch.inference_mode():
        converted, _ = to_crossbar(model, chip(make_chip), example=IMAGE)
        calibrate(converted, [IMAGE])
        program(converted, 3)
    converted(IMAGE).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in converted.parameters())


@pytest.mark.parametrize("change", [lambda net: program(net, 4), lambda net: calibrate(net, [9 * IMAGE])])
def test_an_exported_program_stays_as_it_was_exported(make_chip, change):
    noisy = make_chip(cell={"programming": {"kind": "lognormal", "sigma": 0.2}}, crossbar={"rows": 64})
    converted, _ = to_crossbar(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), noisy, example=IMAGE)
    calibrate(converted, [IMAGE])
    program(converted, 3)
    exported = torch.export.export(converted, (IMAGE,)).module()
    before = exported(IMAGE)
    change(converted)
    assert torch.equal(exported(IMAGE), before)
    with torch.no_grad():
        assert not torch.equal(converted(IMAGE), before)


def _own_chip(rank: int, port: int, network: nn.Module, answers: list) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    program(network, rank)
    answers[rank] = DistributedDataParallel(network)(ROWS).detach().tolist()
    dist.destroy_process_group()


@pytest.mark.slow
def test_every_process_of_a_group_keeps_the_chip_that_it_programmed(make_chip):
    import socket

    noisy = make_chip(cell={"programming": {"kind": "lognormal", "sigma": 0.2}}, crossbar={"rows": 64})
    converted, _ = to_crossbar(nn.Sequential(nn.Linear(8, 4)), noisy, example=ROWS)
    calibrate(converted, [ROWS])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        answers = manager.list([None, None])
        torch.multiprocessing.spawn(_own_chip, (port, converted, answers), nprocs=2)
        for rank in (0, 1):
            program(converted, rank)
            torch.testing.assert_close(torch.tensor(answers[rank]), converted(ROWS).detach(), rtol=0, atol=0)


# What cannot follow a layer on a chip


def _on_chip(make_chip) -> nn.Module:
    converted, _ = to_crossbar(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), chip(make_chip), example=IMAGE)
    calibrate(converted, [IMAGE])
    return converted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda net: torch.vmap(net)(IMAGE[:, None]), "give the layer a whole batch"),
        (lambda net: torch.func.jacrev(net)(IMAGE), "give the layer a whole batch"),
        (lambda net: torch.jit.trace(net, IMAGE), "export a program with torch.export.export"),
        (lambda net: torch.fx.symbolic_trace(net), "trace the plain network, then to_crossbar"),
    ],
)
def test_a_transform_of_pytorch_that_cannot_follow_a_layer_is_told_what_to_do(make_chip, call, told):
    with pytest.raises(ConversionError, match=told):
        call(_on_chip(make_chip))


@pytest.mark.parametrize("lazy", [nn.LazyBatchNorm2d(), nn.LazyLinear(4)])
def test_a_network_of_lazy_modules_is_told_to_run_first(make_chip, lazy):
    with pytest.raises(ConversionError, match="run the model once first"):
        to_crossbar(nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 4, 1), lazy), chip(make_chip), allow_digital=False)
