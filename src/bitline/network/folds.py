"""Whether batch norms still stand behind the layers that took them in, whenever the network runs."""

from collections import Counter
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn

from bitline.errors import ConversionError


class Folds:
    """Counts how often folded batch norms and their layers run in a pass of the whole network.

    Code may go a way that the example did not show: for other sizes, with gradients, by an attribute or by chance. A
    layer that took in a batch norm is wrong wherever the batch norm does not follow.

    Args:
        pairs: batch norm name -> layer name.
    """

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs = dict(pairs)
        self.ran: Counter[str] = Counter()

    def watch(self, model: nn.Module) -> None:
        """Count from now on, and refuse what `model` answers where the counts differ."""
        for name in {*self.pairs, *self.pairs.values()}:
            model.get_submodule(name).register_forward_hook(partial(self._count, name))
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._check)

    def _begin(self, *_: object) -> None:
        if not torch.compiler.is_compiling():
            self.ran.clear()

    def _count(self, name: str, *_: object) -> None:
        if not torch.compiler.is_compiling():
            self.ran[name] += 1

    def _check(self, *_: object) -> None:
        """Raise ConversionError where a layer ran and its batch norm did not."""
        if torch.compiler.is_compiling():
            return
        for norm, layer in self.pairs.items():
            if self.ran[norm] != self.ran[layer]:
                raise ConversionError(
                    f"{norm} is folded into {layer}, and ran {self.ran[norm]} times where that ran {self.ran[layer]} "
                    "times: the network goes another way here than on the example. Convert it with an example that "
                    f"goes this way, or with keep_digital=[{layer!r}]"
                )
