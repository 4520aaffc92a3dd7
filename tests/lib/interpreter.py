"""Spare Triton's interpreter two things that it does in vain, more than half of its time."""

import dataclasses
from types import FunctionType, SimpleNamespace
from typing import Any


def quicken() -> None:
    """Change nothing of what a kernel computes, nor of what is checked meanwhile."""
    from triton import language
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    if not builder.options.debug:
        # Whether whole numbers overflow is computed at every step, and then only said in debug.
        builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    patch = interpreter._patch_lang

    def patch_once(kernel: FunctionType) -> Any:
        """Leave the language as it is where it is patched, as in functions that a kernel calls."""
        named = [m for m in kernel.__globals__.values() if m is language or m is language.core]
        if named and not any(language.core.is_builtin(module.load) for module in named):
            return SimpleNamespace(restore=lambda: None)
        return patch(kernel)

    interpreter._patch_lang = patch_once
