"""What coverage.py finds of one network."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from coverage_affine import quantized
from coverage_counts import answers, count
from coverage_networks import Made, Network, make
from torch import Tensor, nn

from bitline import chip as chips
from bitline.chip.variants import ideal
from bitline.network.inputs import call
from bitline.nn import calibrate, crossbar_layers, placement, to_crossbar
from bitline.nn.observe import in_mode

IMAGES, FEW, LARGE = 4, 2, 30e6
"""by which ranges are set, and which are answered: what other images exceed is not of the arithmetic; few of them for
networks of many parameters"""
CHIPS = {"error": (8,), "error_zero_point": (8, "inputs.zero_point=true"), "error_16": (16,)}
"""bits, and keys of a chip, by what the error on it is called"""
_TAILS = (0.0, 1e-4)
_SAME = 0.01
"""share by which counts may differ: those of one image are a batch's, divided"""


def measure(network: Network, say: Callable[[str, Any], None]) -> None:
    """Convert a network and compare it with itself; `say` is told every finding at once.

    Raises:
        Exception: whatever a step ends with; the last "stage" told is that step.
    """
    say("stage", "make")
    made = make(network)
    model = made.model
    images = IMAGES if sum(p.numel() for p in model.parameters()) < LARGE else FEW
    known = made.inputs(images, 1)
    leaves = list(known.values()) if isinstance(known, dict) else list(known) if isinstance(known, tuple) else [known]
    say("input", [list(leaf.shape[1:]) for leaf in leaves])
    say("parameters", sum(p.numel() for p in model.parameters()))
    randomize(model, known)

    right, seconds = _timed(lambda: ask(model, made, known))
    say("forward_s", seconds)
    say("stage", "count")
    macs = count(model, lambda: call(model, known)).outside // images
    say("macs", macs)
    say("stage", "affine")
    affine = [
        error(quantized(model, lambda: call(model, known), lambda: ask(model, made, known), tail), right)
        for tail in _TAILS
    ]
    say("affine_error", min(affine))
    for key, (bits, *more) in CHIPS.items():
        say("stage", f"convert, {key}")
        chip = ideal(chips.load("rram-22nm", [f"weights.bits={bits}", f"inputs.bits={bits}", *more]))
        (converted, report), seconds = _timed(lambda: to_crossbar(model, chip, example=known))  # noqa: B023
        if key == "error":
            say("convert_s", seconds)
            _shares(converted, report, known, images, macs, say)
            with in_mode("float", *crossbar_layers(converted).values()):
                say("float_error", error(ask(converted, made, known), right))
        say("stage", f"calibrate, {key}")
        _, seconds = _timed(lambda: calibrate(converted, [(known, torch.zeros(images))]))  # noqa: B023
        if key == "error":
            say("calibrate_s", seconds)
        say("stage", f"answer, {key}")
        answer, seconds = _timed(lambda: ask(converted, made, known))  # noqa: B023
        if key == "error":
            say("answer_s", seconds)
        say(key, error(answer, right))
    say("stage", None)


def _shares(
    converted: nn.Module, report: Any, known: Any, images: int, macs: int, say: Callable[[str, Any], None]
) -> None:
    """Tell where products are made, counted, and what the conversion says of it otherwise."""
    layers = {name: layer for name, layer in crossbar_layers(converted).items() if layer.converts}
    with in_mode("float", *layers.values()):
        counted = count(converted, lambda: call(converted, known), layers.values())
    on_chip, digital, weighted = (n // images for n in (counted.inside, counted.outside, counted.weighted))
    say("macs_on_crossbars", on_chip)
    say("macs_digital", digital)
    say("macs_digital_by_weights", weighted)
    say("mac_share", 1 - digital / macs if macs else 0.0)
    say("weighted_share", 1 - weighted / max(1, macs - digital + weighted))
    placed = sum(part.matmul.macs for part in placement(converted).layers)
    listed = sum(part.macs for part in report.digital)
    pairs = {
        "the plain network's, not more": (min(on_chip + digital, macs), macs),  # rewritten layers multiply zeros too
        "the placement's": (on_chip, placed),
        "the digital operations'": (digital, listed),
    }
    say("disagree", [f"{what}: counted {n}, told {m}" for what, (n, m) in pairs.items() if abs(n - m) > _SAME * macs])
    reasons: dict[str, dict[str, Any]] = {}
    for part in report.digital:
        entry = reasons.setdefault(f"{part.op}: {part.why}", {"operations": 0, "macs": 0})
        entry["operations"] += 1
        entry["macs"] += part.macs
    say("digital", [{"what": what, **entry} for what, entry in sorted(reasons.items(), key=lambda r: -r[1]["macs"])])
    say("folded", len(report.folded))


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    found = run()
    return found, round(time.process_time() - start, 2)


@torch.no_grad()
def ask(model: nn.Module, made: Made, inputs: Any) -> list[Tensor]:
    """Return what a network, or its parts, answer to inputs."""
    torch.manual_seed(0)
    if not made.parts:
        return answers(call(model, inputs))
    found: list[Tensor] = []
    with ExitStack() as stack:
        for name in made.parts:
            handle = model.get_submodule(name).register_forward_hook(lambda _m, _a, out: found.extend(answers(out)))
            stack.callback(handle.remove)
        call(model, inputs)
    return found


def error(found: list[Tensor], right: list[Tensor]) -> float:
    """Deviation of answers over their own deviation from their mean: the root of the mean square over all answers."""
    if [x.shape for x in found] != [x.shape for x in right] or not found:
        raise ValueError(f"{len(found)} answers for {len(right)}, or of other shapes")
    squares = [
        float((a - b).double().square().sum() / power)
        for a, b in zip(found, right, strict=True)
        if (power := float((b - b.mean()).double().square().sum())) > 0
    ]
    if not all(map(math.isfinite, squares)):
        raise ValueError("answers are not finite")
    return (sum(squares) / len(squares)) ** 0.5


@torch.no_grad()
def randomize(model: nn.Module, inputs: Any) -> None:
    """Have no parameter constant, as scales of residual branches are at first, and batch norms know the inputs."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if not (parameter.is_floating_point() and parameter.numel() and _constant(parameter)):
            continue
        if name.endswith("bias"):
            parameter.normal_(0, 0.1, generator=generator)
        elif parameter.numel() == max(parameter.shape, default=1):
            parameter.uniform_(0.5, 1.5, generator=generator)
        else:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    try:
        call(model, inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _constant(parameter: Tensor) -> bool:
    return bool((parameter == parameter.flatten()[0]).all())
