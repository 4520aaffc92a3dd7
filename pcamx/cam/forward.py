"""One forward of somebody's model at a time, watched, after which the model is as it was."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.jit import ScriptModule

# One for all models: they may share layers, and torch.compile's stance is the process's.
_ONE_AT_A_TIME = threading.RLock()


class Run(NamedTuple):
    """A layer's last run in a forward; maps changed in place later are seen as they end."""

    given: Any
    """The first argument, None without one."""
    output: Any
    times: int
    """How often the layer ran."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold the model in eval mode, without a compiled layer, which would pass by the hooks.

    Afterwards all is as it was.

    Another thread that enters waits, whatever its model.
    """
    # Nothing can have been compiled where this module was never imported, and it is slow to.
    compiled = "torch._dynamo" in sys.modules
    with _ONE_AT_A_TIME:
        modes = [(layer, layer.training) for layer in model.modules()]

        def restore() -> None:
            for layer, training in modes:
                layer.training = training

        try:
            # Not eval(): what a model of its own mind does besides, train() need not undo.
            for layer, _ in modes:
                layer.training = False
            with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
                yield
        finally:
            _surely(restore)


@contextmanager
def watching(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Run]]:
    """Yield each layer's run, by name in the order of first use, as this thread makes them.

    What another thread runs meanwhile is not taken for it. No hook stays.
    Raises ValueError for a layer of TorchScript, which takes no hook.
    """
    runs: dict[str, Run] = {}
    named = {layer: name for name, layer in layers.items()}
    hooks = [(layer, _hook(name, runs)) for name, layer in layers.items()]

    def unhook() -> None:
        # By identity: an interrupt may fall between a hook's registration and its handle.
        for layer, hook in hooks:
            for key in [key for key, found in layer._forward_hooks.items() if found is hook]:
                del layer._forward_hooks[key]

    try:
        for layer, hook in hooks:
            if isinstance(layer, ScriptModule):
                raise ValueError(f"{named[layer]} is TorchScript, which cannot be watched")
            layer.register_forward_hook(hook)
        yield runs
    finally:
        _surely(unhook)


def _hook(name: str, runs: dict[str, Run]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    caller = threading.get_ident()

    def record(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() == caller:
            times = runs[name].times + 1 if name in runs else 1
            runs[name] = Run(given[0] if given else None, output, times)

    return record


def _surely(undo: Callable[[], None]) -> None:
    """Run ``undo`` to its end, and only then let through a Ctrl-C that fell into it."""
    interrupt = None
    while True:
        try:
            undo()
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
