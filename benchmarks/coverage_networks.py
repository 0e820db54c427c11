"""The networks of coverage.py: their names, how each is made with random weights, and inputs that it takes."""

import importlib
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIMM = Path(__file__).with_name("coverage_timm.txt")
_SIZES = (96, 128, 160, 192, 224, 256, 288, 384)
_VIDEO = (("swin3d", (8, 64)), ("mvit", (16, 224)), ("", (8, 64)))
"""frames and pixels of an input, by the beginning of a name"""


class Network(NamedTuple):
    """A network to convert.

    Args:
        name: of its constructor.
        source: ``"torchvision"``, ``"timm"`` or ``"transformers"``.
        family: constructors that share code.
    """

    name: str
    source: str
    family: str


class Made(NamedTuple):
    """A network with inputs.

    Args:
        model: in evaluation mode, random weights.
        inputs: of a number of samples and a seed.
        parts: names of the modules whose answers are compared; the network's own where there are none. Detectors sort
            and drop boxes by their scores, which any difference changes.
    """

    model: nn.Module
    inputs: Callable[[int, int], Any]
    parts: tuple[str, ...] = ()


def networks() -> list[Network]:
    """All networks, of every family the first before any second, the small ones of transformers before all."""
    found = [*_TRANSFORMERS_NETWORKS, *_timm(), *_torchvision()]
    seen: dict[tuple[str, str], int] = {}
    order: list[int] = []
    for each in found:
        key = each.source, each.family
        seen[key] = seen.get(key, -1) + 1
        order.append(seen[key])
    return [each for _, each in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]


def _torchvision() -> Iterator[Network]:
    from torchvision.models import list_models

    for name in sorted(list_models(), key=lambda name: (_family(name), len(name), name)):
        if not name.startswith("quantized_"):  # integers of another kind already
            yield Network(name, "torchvision", _family(name))


def _family(name: str) -> str:
    return re.match(r"[a-z]+(?:3d)?(?:_v\d)?", name)[0]  # pyright: ignore[reportOptionalSubscript]


def _timm() -> Iterator[Network]:
    for line in TIMM.read_text().splitlines():
        module, name = line.split()
        yield Network(name, "timm", module)


def choose() -> None:
    """Write which constructor stands for each family of timm: of a module's names with one beginning, the smallest."""
    import timm

    lines: list[str] = []
    for module in timm.models.list_modules():
        groups: dict[str, list[str]] = {}
        for name in timm.list_models(module=module):
            groups.setdefault(re.match(r"[a-z]+", name)[0], []).append(name)  # pyright: ignore[reportOptionalSubscript]
        groups.pop("test", None)
        sized = [min((_parameters(name), name) for name in group) for group in groups.values()]
        lines += [f"{module} {name}" for _, name in sorted(sized)]
    TIMM.write_text("\n".join(lines) + "\n")


def _parameters(name: str) -> float:
    import timm

    try:
        with torch.device("meta"):
            return sum(p.numel() for p in timm.create_model(name).parameters())
    except (RuntimeError, NotImplementedError):
        return float("inf")


def images(samples: int, seed: int, *shape: int) -> Tensor:
    """Draw images: noise of several scales, of unit variance."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.zeros(samples, *shape)
    for coarse in (1, 4, 16):
        small = [shape[0], *(max(1, length // coarse) for length in shape[1:])]
        noise = torch.randn(samples, *small, generator=generator)
        parts += F.interpolate(noise, shape[1:], mode="nearest")
    return parts / 3**0.5


def make(network: Network) -> Made:
    """Build a network, and find the smallest input that it takes."""
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    return {"torchvision": _of_torchvision, "timm": _of_timm, "transformers": _of_transformers}[network.source](
        network.name
    )


def _of_torchvision(name: str) -> Made:
    from torchvision.models import get_model_builder

    module = get_model_builder(name).__module__.removeprefix("torchvision.models.")
    kwargs: dict[str, Any] = {"weights": None}
    if module.startswith(("detection", "segmentation")):
        kwargs["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        kwargs["init_weights"] = False  # takes minutes
    if module.startswith("detection"):
        if not name.startswith("ssd"):
            kwargs |= {"min_size": 128, "max_size": 128}
        model = _built(name, kwargs)
        inputs = _images(3, 128, 128)
        heads = [n for n in ("backbone", "rpn.head", "head") if _has(model, n)]
        return Made(model, inputs, tuple(heads))
    if module.startswith("optical_flow"):
        model = _built(name, {**kwargs})
        return Made(model, lambda n, seed: (images(n, seed, 3, 128, 128), images(n, seed + 1, 3, 128, 128)))
    if module.startswith("video"):
        frames, size = next(shape for begins, shape in _VIDEO if name.startswith(begins))
        return Made(_built(name, kwargs), _images(3, frames, size, size))
    return _smallest(_built(name, kwargs))


def _built(name: str, kwargs: dict[str, Any]) -> nn.Module:
    from torchvision.models import get_model

    return get_model(name, **kwargs).eval()


def _has(model: nn.Module, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def _of_timm(name: str) -> Made:
    import timm

    model = timm.create_model(name).eval()
    config = model.default_cfg if hasattr(model, "default_cfg") else {}
    return _smallest(model, config.get("input_size", (3, 224, 224)))


def _images(*shape: int) -> Callable[[int, int], Tensor]:
    return lambda samples, seed: images(samples, seed, *shape)


def _smallest(model: nn.Module, own: tuple[int, int, int] = (3, 224, 224)) -> Made:
    """Find the smallest square image that a network answers; in training its batch norms take the batch's mean."""
    last: Exception | None = None
    for size in sorted({size for size in (*_SIZES, own[-1]) if size <= max(own[-1], 224)}):
        inputs = _images(own[0], size, size)
        try:
            with torch.no_grad():
                model(inputs(2, 0))
        except Exception as error:  # whatever a network says of a size that it does not take
            last = error
        else:
            return Made(model, inputs)
    assert last is not None
    raise last


_SMALL = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_LONG = {**_SMALL, "intermediate_size": 128, "max_position_embeddings": 128}
_TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2LMHeadModel": ("GPT2Config", {"vocab_size": 512, "n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4}),
    "BertModel": ("BertConfig", _LONG),
    "DistilBertModel": ("DistilBertConfig", {"vocab_size": 512, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}),  # noqa: E501
    "LlamaForCausalLM": ("LlamaConfig", {**_LONG, "num_key_value_heads": 2}),
    "ViTModel": ("ViTConfig", {**_LONG, "image_size": 64, "patch_size": 8}),
    "T5ForConditionalGeneration": ("T5Config", {"vocab_size": 512, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}),  # noqa: E501
    "MixtralForCausalLM": ("MixtralConfig", {**_LONG, "num_key_value_heads": 2, "num_local_experts": 4}),
    "WhisperEncoder": ("WhisperConfig", {"num_mel_bins": 16, "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128, "max_source_positions": 64}),  # noqa: E501
    "MambaForCausalLM": ("MambaConfig", {**_SMALL, "state_size": 8}),
    "SwinModel": ("SwinConfig", {"image_size": 64, "patch_size": 4, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}),  # noqa: E501
}  # fmt: skip
"""class, its configuration and what is small in it"""
_TRANSFORMERS_NETWORKS = [
    Network(name, "transformers", config.removesuffix("Config").lower()) for name, (config, _) in _TRANSFORMERS.items()
]


def _of_transformers(name: str) -> Made:
    transformers = importlib.import_module("transformers")
    config_name, small = _TRANSFORMERS[name]
    config = getattr(transformers, config_name)(**small)
    config.use_cache = False
    module = transformers
    if name == "WhisperEncoder":
        module = importlib.import_module("transformers.models.whisper.modeling_whisper")
    model = getattr(module, name)(config).eval()

    def tokens(samples: int, seed: int) -> Tensor:
        return torch.randint(0, 512, (samples, 32), generator=torch.Generator().manual_seed(seed))

    if name == "T5ForConditionalGeneration":
        return Made(model, lambda n, seed: {"input_ids": tokens(n, seed), "decoder_input_ids": tokens(n, seed + 1)})
    if name in ("ViTModel", "SwinModel"):
        return Made(model, _images(3, 64, 64))
    if name == "WhisperEncoder":
        return Made(model, lambda n, seed: torch.randn(n, 16, 128, generator=torch.Generator().manual_seed(seed)))
    return Made(model, tokens)
