"""Processes that begin as ``python *words`` would, forked from one that has imported everything.

A new Python takes longer to import than a small training to train.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import torch

PROJECT = Path(__file__).resolve().parents[2]


def context(env: Mapping[str, str]) -> ForkServerContext | SpawnContext:
    """Return what starts a process: a fork of `bench.lib.preload`, which is started in ``env``.

    A new Python where there is a GPU: asking for one is enough to make a fork unfit to use it.
    """
    if torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    forkserver.set_forkserver_preload(["bench.lib.preload"])
    with mock.patch.dict(os.environ, {**env, "PYTHONPATH": str(PROJECT)}, clear=True):
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


def start(words: list[str], cwd: Path, env: Mapping[str, str], log: Path) -> BaseProcess:
    """Start ``python *words``, a script, ``-m`` or ``-c``; what it says is added to ``log``.

    Raises nothing for what becomes of it: see the process's exitcode.
    """
    made = context(env).Process(target=_become, args=(str(log), cwd, dict(env), words))
    made.start()
    return made


def _become(log: str, cwd: Path, env: dict[str, str], words: list[str]) -> None:
    """What the forked process does: be as if ``python *words`` had just been launched."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    written = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(written, stream)
    _interpret(words)


def _interpret(words: list[str]) -> None:
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = list(words[1:])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")
