"""Rewritings put to a network, each only if the network answers as before."""

from collections import Counter
from collections.abc import Callable, Collection

from torch import nn

from bitline.errors import ConversionError
from bitline.network.inputs import Inputs
from bitline.network.products import slow_attention
from bitline.network.replace import put, unlike_with
from bitline.network.rewrite.attention import Attention, attention, to_itself
from bitline.network.rewrite.calls import callers, calling
from bitline.network.rewrite.libraries import library_layer
from bitline.network.rewrite.module import Rewritten, Stays
from bitline.network.rewrite.recurrent import recurrent
from bitline.network.rewrite.transposed import transposed
from bitline.network.rewrite.weights import computed
from bitline.network.same import agree, answer, lively, tolerance
from bitline.network.trace import MAPPED, modules

_Rule = Callable[[nn.Module], Rewritten | None]


class Rewriting:
    """A network whose modules that hide products are made of plain layers.

    Args:
        model: to be changed in place, in eval mode.
        example: one batch; with it, each change is kept only if the network answers as before.
        keep: names of modules to leave alone, or a function of (name, layer) that says so.

    Attributes:
        model: the network, which is another module if it was rewritten itself.
        rewritten: what was done, by name.
        why: reasons why others stay, by name.
    """

    def __init__(
        self, model: nn.Module, example: Inputs | None, keep: Collection[str] | Callable[[str, nn.Module], bool] = ()
    ) -> None:
        self.model, self.example, self.keep = model, example, keep
        self.rewritten: dict[str, str] = {}
        self.why: dict[str, str] = {}
        self._put(_first(computed))
        alone = to_itself(self.model, example)
        self._put(_first(lambda module: attention(module, alone), recurrent, transposed, library_layer))
        _no_nested_tensors(self.model)
        called = callers(self.model, example)
        self._put(lambda module: calling(module, called[module]) if module in called else None)

    def _put(self, rule: _Rule) -> None:
        """Rewrite what a rule changes and what the network may have changed."""
        names = [name for name, module in modules(self.model) if self._made(name, module, rule) is not None]
        if not names:
            return
        old = {name: self.model.get_submodule(name) for name in names}
        for name in self._unlike(old, rule):
            self.why[name] = "the network answers otherwise when it is rewritten, or its code looks at what is inside"
            del old[name]
        for some in (old.keys() - {""}, old.keys() & {""}):  # the network itself last, with what is inside by then
            new: dict[nn.Module, nn.Module] = {}
            for name in [name for name in old if name in some]:
                made = self._made(name, old[name], rule)
                assert made is not None
                new[old[name]] = made.module
                before = self.rewritten.get(name)
                self.rewritten[name] = f"{before}; {made.how}" if before else made.how
            self.model = put(self.model, new)

    def _made(self, name: str, module: nn.Module, rule: _Rule) -> Rewritten | None:
        if any(isinstance(parameter, nn.UninitializedParameter) for parameter in module.parameters(recurse=False)):
            return None
        try:
            made = rule(module)
            if made is not None and made.anew and self._shared(module):
                raise Stays("its weights are another module's too")
        except Stays as reason:
            self.why[name] = str(reason)
            return None
        if made is not None and self._kept(name, module):
            self.why[name] = "kept digital as asked"
            return None
        return made

    def _kept(self, name: str, module: nn.Module) -> bool:
        if callable(self.keep):
            return isinstance(module, MAPPED) and self.keep(name, module)
        return name in self.keep

    def _shared(self, module: nn.Module) -> bool:
        """Whether another module has a parameter of this one."""
        holders = Counter(id(p) for m in self.model.modules() for p in m.parameters(recurse=False))
        return any(holders[id(p)] > 1 for p in module.parameters(recurse=False))

    def _unlike(self, old: dict[str, nn.Module], rule: _Rule) -> list[str]:
        """Those whose rewriting lets the network answer otherwise, while no branch of it is silent."""
        if self.example is None:
            return []
        with slow_attention(), lively(self.model):
            new: dict[str, nn.Module] = {}
            for name, module in old.items():
                made = rule(module)
                assert made is not None
                new[name] = made.module
            if "" in new and not self._same(new.pop("")):
                return list(old)
            return unlike_with(self.model, old, new, self.example)

    def _same(self, new: nn.Module) -> bool:
        assert self.example is not None
        try:
            return agree(answer(self.model, self.example), answer(new, self.example), tolerance(self.model))
        except (ConversionError, AttributeError):
            return False


def _first(*rules: _Rule) -> _Rule:
    """The first of some rules that knows a module."""
    return lambda module: next((made for rule in rules if (made := rule(module)) is not None), None)


def _no_nested_tensors(model: nn.Module) -> None:
    """Have encoders of PyTorch hand on padded tensors as they are: nested ones reach no layer."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(isinstance(m, Attention) for m in module.modules()):
            module.use_nested_tensor = False
