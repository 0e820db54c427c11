"""Batch norm folded into the layer before it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bitline.mapping.lower import Lowerable
from bitline.nn.shapes import run_hooked

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def neighbours(model: nn.Module, layers: Mapping[str, Lowerable], example: Tensor | None) -> dict[str, str]:
    """Find each batch norm that sees the result of one layer, and is alone in seeing it.

    Inside nn.Sequential the order is known; elsewhere an example shows which result goes where.

    Args:
        model: in eval mode.
        layers: that may be folded into, by name.
        example: one batch; without it only nn.Sequential is looked at.

    Returns:
        batch norm name -> layer name.
    """
    names = {module: name for name, module in model.named_modules()}
    pairs: dict[str, str] = {}
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            children = list(module)
            for first, second in zip(children, children[1:], strict=False):
                if isinstance(second, BatchNorm) and names.get(first) in layers:
                    pairs[names[second]] = names[first]
    if example is not None:
        pairs = _follow(model, layers, example)
    return {norm: layer for norm, layer in pairs.items() if _foldable(model.get_submodule(norm))}


def _foldable(norm: nn.Module) -> bool:
    return isinstance(norm, BatchNorm) and norm.running_mean is not None and norm.running_var is not None


def _follow(model: nn.Module, layers: Mapping[str, Lowerable], example: Tensor) -> dict[str, str]:
    """Watch one batch: a layer and a batch norm that each run once, the second on the first's result."""
    made: dict[int, tuple[str, Tensor]] = {}
    seen: dict[str, list[str]] = {}
    calls: dict[str, int] = {}

    def after(name: str, output: object) -> None:
        calls[name] = calls.get(name, 0) + 1
        if isinstance(output, Tensor):
            made[id(output)] = (name, output)

    def before(name: str, args: tuple[object, ...]) -> None:
        calls[name] = calls.get(name, 0) + 1
        if args and id(args[0]) in made:
            seen.setdefault(name, []).append(made[id(args[0])][0])

    handles = [m.register_forward_hook(lambda _m, _a, out, n=n: after(n, out)) for n, m in layers.items()]
    norms = {n: m for n, m in model.named_modules() if isinstance(m, BatchNorm)}
    handles += [m.register_forward_pre_hook(lambda _m, args, n=n: before(n, args)) for n, m in norms.items()]
    run_hooked(model, example, handles)
    return {n: s[0] for n, s in seen.items() if len(s) == 1 and calls[n] == 1 and calls[s[0]] == 1}


def fold(model: nn.Module, pairs: Mapping[str, str], example: Tensor | None) -> dict[str, str]:
    """Fold batch norms into layers, in place; a fold that changes what the model answers is taken back.

    Args:
        model: in eval mode.
        pairs: batch norm name -> layer name.
        example: one batch to compare answers on; nothing is compared without it.

    Returns:
        The pairs that were folded; each batch norm is now nn.Identity.
    """
    if example is None:
        for norm, layer in pairs.items():
            _fold_one(model, norm, layer)
        return dict(pairs)
    before = _answer(model, example)
    undo = [(_fold_one(model, norm, layer), norm, layer) for norm, layer in pairs.items()]
    if _agree(before, _answer(model, example)):
        return dict(pairs)
    for restore, _, _ in undo:
        restore()
    kept: dict[str, str] = {}
    for norm, layer in pairs.items():
        restore = _fold_one(model, norm, layer)
        if _agree(before, _answer(model, example)):
            kept[norm] = layer
        else:
            restore()
    return kept


def _answer(model: nn.Module, example: Tensor) -> Tensor:
    answer = run_hooked(model, example, [])
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    parts = answer if isinstance(answer, tuple | list) else [answer]
    return torch.cat([part.flatten().double() for part in parts if isinstance(part, Tensor)])


def _agree(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(a.abs().max()) + 1e-12)


def _fold_one(model: nn.Module, norm_name: str, layer_name: str):  # noqa: ANN202
    """Fold one batch norm; return what takes it back."""
    norm, layer = model.get_submodule(norm_name), model.get_submodule(layer_name)
    assert isinstance(norm, BatchNorm) and isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = layer.weight, layer.bias
    with torch.no_grad():
        factor = torch.rsqrt(norm.running_var.double() + norm.eps)
        if norm.affine:
            factor = factor * norm.weight.double()
        shift = (0 if bias is None else bias.double()) - norm.running_mean.double()
        shift = shift * factor + (norm.bias.double() if norm.affine else 0)
        scaled = weight.double() * factor.view(-1, *[1] * (weight.dim() - 1))
        layer.weight = nn.Parameter(scaled.to(weight.dtype), requires_grad=weight.requires_grad)
        layer.bias = nn.Parameter(shift.to(weight.dtype))
    model.set_submodule(norm_name, nn.Identity())

    def restore() -> None:
        layer.weight, layer.bias = weight, bias  # pyright: ignore[reportAttributeAccessIssue]
        model.set_submodule(norm_name, norm)

    return restore
