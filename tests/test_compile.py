"""Every kernel compiled for sm_80, sm_90 and sm_100 without a GPU stays within its budget."""

import json
import sys
from pathlib import Path
from typing import Any

import aot
import processes
import pytest

CASES = [(variant, target) for variant in aot.VARIANTS for target in aot.TARGETS]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of tests/aot.py: in a process of its own, for here the kernels are interpreted."""
    folder = tmp_path_factory.mktemp("aot")
    processes.command(
        *(sys.executable, processes.PROJECT / "tests/aot.py", folder / "rows.json"),
        cwd=processes.PROJECT,
        PYTHONPATH=str(processes.PROJECT),
        TRITON_CACHE_DIR=str(folder / "cache"),
        TRITON_INTERPRET="0",
    ).ok()
    report: dict[str, Any] = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    return report


@pytest.mark.parametrize(
    ("variant", "target"), CASES, ids=[f"{v.name}, sm_{target}" for v, target in CASES]
)
def test_variant_stays_within_its_budget(
    compiled: dict[str, Any], variant: aot.Variant, target: int
) -> None:
    (row,) = (r for r in compiled["rows"] if (r["name"], r["target"]) == (variant.name, target))
    assert aot.excess(variant, row) == [], f"{variant.name}, sm_{target}, {compiled['triton']}"


def test_every_kernel_is_in_the_table() -> None:
    """A kernel that no variant compiles would have no budget at all."""
    launched = {
        name
        for path in Path(processes.PROJECT, "kernels").glob("*.py")
        for name in aot.kernels(path.read_text(encoding="utf-8"))
    }
    listed = {variant.kernel.fn.__name__ for variant in aot.VARIANTS}
    assert launched and launched == listed


def test_spills_are_seen(compiled: dict[str, Any]) -> None:
    assert compiled["starved"]["registers"] <= 24
    assert any("stack" in line for line in aot.excess(aot.STARVED, compiled["starved"]))


def test_the_lines_are_those_of_the_planned_occupancy() -> None:
    """Worked out by hand: 8 programs of 4 warps are 1024 threads, 64 registers each."""
    variant = aot.Variant("by hand", None, "", num_warps=4, programs=8)
    assert variant.registers == 64
    assert [variant.shared(target) for target in aot.TARGETS] == [19968, 28160, 28160]
    fits = {"target": 90, "registers": 64, "stack": 0, "local": 0, "shared": 28160}
    assert aot.excess(variant, fits) == []
    for more in fits.keys() - {"target"}:
        assert len(aot.excess(variant, fits | {more: fits[more] + 1})) == 1
