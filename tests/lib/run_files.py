"""What training left in a run's folder."""

import json
from pathlib import Path

import torch

from pcamx.run.weights import Weights


def steps_of(run: Path, stage: int) -> list[int]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if (line["kind"], line["stage"]) == ("train", stage)]


def losses_of(run: Path, stage: int) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if (line["kind"], line["stage"]) == ("train", stage)]


def assert_same_bits(ours: Weights, theirs: Weights) -> None:
    assert ours.accuracy == theirs.accuracy
    assert ours.state.keys() == theirs.state.keys()
    for name, value in ours.state.items():
        assert torch.equal(value, theirs.state[name]), name
