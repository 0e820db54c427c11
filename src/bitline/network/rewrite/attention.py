"""Multi-head attention with its projections as linear layers; products of activations stay functions."""

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.network.inputs import Inputs
from bitline.network.products import slow_attention
from bitline.network.rewrite.module import Rewritten, Stays, keeps_to, linear, twin
from bitline.network.subclass import gain
from bitline.network.trace import modules, run_hooked

_OWN = ("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class Attention(nn.Module):
    """nn.MultiheadAttention whose projections are layers: `in_proj`, or `q_proj`, `k_proj` and `v_proj`; `out_proj`.

    Weights are read by their former names too, joined from those of the layers.
    """

    embed_dim: int
    num_heads: int
    head_dim: int
    batch_first: bool
    dropout: float
    _qkv_same_embed_dim: bool
    out_proj: nn.Module

    @property
    def projections(self) -> list[nn.Linear]:
        """The layers that queries, keys and values go through: one for all, or three."""
        return [self.get_submodule(n) for n in _names(together="in_proj" in self._modules)]  # pyright: ignore[reportReturnType]

    @property
    def in_proj_weight(self) -> Tensor | None:
        """As the plain module has it, (3 embed_dim, embed_dim); None where sizes differ."""
        return torch.cat([each.weight for each in self.projections]) if self._qkv_same_embed_dim else None

    @property
    def in_proj_bias(self) -> Tensor | None:
        """As the plain module has it, (3 embed_dim,)."""
        biases: list[Tensor | None] = [each.bias for each in self.projections]
        given = [bias for bias in biases if bias is not None]
        return torch.cat(given) if given else None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as nn.MultiheadAttention does, with the same arguments and results."""
        itself = query is key and key is value
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.dim() == 3
        if not batched and query.dim() != 2:
            raise RuntimeError(f"query of shape {tuple(query.shape)}; expected (L, E), or two axes and a batch axis")
        given = (query,) if itself else (query, key, value)
        if not batched:
            given = tuple(x.unsqueeze(0) for x in given)
        elif not self.batch_first:
            given = tuple(x.transpose(0, 1) for x in given)
        q, k, v = (self._heads(x) for x in self._projected(*given))
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = self._mask(q, k, None if causal else attn_mask, key_padding_mask)
        drop = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * math.sqrt(1.0 / self.head_dim)) @ k.transpose(-2, -1)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = F.dropout(weights, drop) if drop else weights
            y = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, drop, causal)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return (y.squeeze(0) if not batched else y if self.batch_first else y.transpose(0, 1)), weights

    def _projected(self, query: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        layers, given = self.projections, (query, *(others or (query, query)))
        if len(layers) == 3:
            return tuple(layer(x) for layer, x in zip(layers, given, strict=True))
        if not others:
            return layers[0](query).chunk(3, -1)
        return tuple(layers[0](x).chunk(3, -1)[part] for part, x in enumerate(given))

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, tokens, features) to (batch, heads, tokens, features of a head)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _mask(self, q: Tensor, k: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor | None:
        """What is added to the scores, (batch, heads, L, S) or what spreads to that."""
        images, heads, queries, keys = *q.shape[:3], k.shape[2]
        masks: list[Tensor] = []
        if attn_mask is not None:
            allowed = ((queries, keys), (images * heads, queries, keys))
            if tuple(attn_mask.shape) not in allowed:
                raise RuntimeError(
                    f"The shape of attn_mask is {tuple(attn_mask.shape)}, but should be one of {allowed}."
                )
            mask = _additive(attn_mask, q)
            masks.append(mask if mask.dim() == 2 else mask.view(images, heads, queries, keys))
        if key_padding_mask is not None:
            if key_padding_mask.shape[-1] != keys or key_padding_mask.numel() != images * keys:
                raise RuntimeError(
                    f"key_padding_mask of shape {tuple(key_padding_mask.shape)}; expected {(images, keys)}"
                )
            masks.append(_additive(key_padding_mask, q).view(images, 1, 1, keys))
        return None if not masks else masks[0] if len(masks) == 1 else masks[0] + masks[1]


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(mask, -math.inf)
    if not mask.dtype.is_floating_point:
        raise RuntimeError(f"a mask of {mask.dtype}; only bool and floating types are supported")
    return mask


def _names(*, together: bool) -> tuple[str, ...]:
    return ("in_proj",) if together else ("q_proj", "k_proj", "v_proj")


def attention(module: nn.Module, to_itself: Collection[nn.Module] = ()) -> Rewritten | None:
    """Make layers of the projections of nn.MultiheadAttention.

    Args:
        module: any.
        to_itself: those whose queries, keys and values are known to be one tensor: one layer serves all three.

    Raises:
        Stays: bias_kv, zero attention, or a forward of its own.
    """
    if not isinstance(module, nn.MultiheadAttention) or isinstance(module, Attention):
        return None
    if not keeps_to(module, nn.MultiheadAttention) or not keeps_to(module.out_proj, nn.Linear):
        raise Stays(f"{type(module).__name__} has a forward of its own")
    if module.bias_k is not None or module.add_zero_attn:
        raise Stays("adds keys of its own (add_bias_kv, add_zero_attn), and computes inside one function")
    weight, bias = _parameter(module, "in_proj_weight"), _parameter(module, "in_proj_bias")
    new = twin(module, without=_OWN)
    if module in to_itself and weight is not None:
        new._modules["in_proj"] = linear(weight, bias, like=module)
    else:
        apart = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        weights = apart if weight is None else weight.chunk(3)
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        for name, weight, shift in zip(_names(together=False), weights, biases, strict=True):
            new._modules[name] = linear(weight, shift, like=module)
    new._modules["out_proj"] = new._modules.pop("out_proj")  # in the order that they run
    gain(new, Attention, type(module))
    return Rewritten(
        new, "projections are linear layers, products of activations stay digital", anew="in_proj" not in new._modules
    )


def _parameter(module: nn.Module, name: str) -> Tensor | None:
    return getattr(module, name)


def to_itself(model: nn.Module, example: Inputs | None) -> set[nn.Module]:
    """Attentions whose queries, keys and values are one tensor whenever they run on an example."""
    every = [module for _, module in modules(model) if isinstance(module, nn.MultiheadAttention)]
    if example is None or not every:
        return set()
    seen: dict[nn.Module, bool] = {}

    def see(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        q, k, v = (*args[:3], *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))
        seen[module] = seen.get(module, True) and q is k and k is v

    with slow_attention():
        run_hooked(model, example, [m.register_forward_pre_hook(see, with_kwargs=True) for m in every])
    return {module for module, itself in seen.items() if itself}
