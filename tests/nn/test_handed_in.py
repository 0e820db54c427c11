"""What is handed in stays as it is; what cannot follow a layer on a chip is told what to do."""

import pytest
import torch
from torch import nn

from bitline.errors import ConversionError
from bitline.nn import calibrate, program, to_crossbar
from network_samples import IMAGE, ROWS, Code, agrees, chip


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
