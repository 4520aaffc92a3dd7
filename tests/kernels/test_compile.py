"""Every kernel compiled for sm_80, sm_90 and sm_100 without a GPU stays within its budget."""

import json
import sys
from typing import Any

import aot
import processes
import pytest
import sass

from bench.lib.operations import floors

CASES = [(case, target) for case in aot.CASES for target in case.targets]
FITS = {"num_warps": 4, "registers": 64, "stack": 0, "local": 0, "shared": 28160}


@pytest.fixture(scope="session")
def compiled(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> dict[str, Any]:
    """The report of aot.py: in a process of its own, for here the kernels are interpreted.

    Triton knows by its sources and options what it has compiled before, which is kept.
    """
    assert pytestconfig.cache is not None
    folder = tmp_path_factory.mktemp("aot")
    processes.command(
        *(sys.executable, processes.PROJECT / "tests/kernels/aot.py", folder / "rows.json"),
        cwd=processes.PROJECT,
        PYTHONPATH=str(processes.PROJECT),
        TRITON_CACHE_DIR=str(pytestconfig.cache.mkdir("triton")),
        TRITON_INTERPRET="0",
    ).ok()
    report: dict[str, Any] = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    return report


@pytest.mark.parametrize(
    ("case", "target"), CASES, ids=[f"{case.name}, sm_{target}" for case, target in CASES]
)
def test_kernels_stay_within_their_budget(
    compiled: dict[str, Any], case: aot.Case, target: int
) -> None:
    rows = compiled["rows"][f"{case.name}, sm_{target}"]
    assert rows.keys() == case.plan.keys()
    too_much = [
        f"{kernel}, {line} (Triton {compiled['triton']})"
        for kernel, programs in case.plan.items()
        for line in aot.excess(rows[kernel], programs, target)
    ]
    assert too_much == []


@pytest.mark.parametrize("target", aot.TARGETS)
@pytest.mark.parametrize("case", [c for c in aot.CASES if c.costs], ids=lambda case: case.name)
def test_kernels_stay_within_their_instructions(
    compiled: dict[str, Any], case: aot.Case, target: int
) -> None:
    rows = compiled["rows"][f"{case.name}, sm_{target}"]
    assert case.costs.keys() == rows.keys()
    counted = {kernel: (row["instructions"], row["budget"]) for kernel, row in rows.items()}
    assert all(count <= budget for count, budget in counted.values()), counted


@pytest.mark.parametrize("target", aot.TARGETS)
def test_the_floors_of_the_bench_are_in_the_table(compiled: dict[str, Any], target: int) -> None:
    assert floors.TARGETS == aot.TARGETS and floors.COUNTED == aot.BATCH
    for case, kernels in floors.KERNELS.values():
        rows = compiled["rows"][f"{case}, sm_{target}"]
        assert all(rows[kernel]["issue_us"] > 0 < rows[kernel]["bytes_us"] for kernel in kernels)


def test_every_kernel_is_in_the_table() -> None:
    """One that no case launches would have no budget."""
    sources = (processes.PROJECT / "kernels").glob("*.py")
    launched = {name for path in sources for name in aot.launched(path.read_text("utf-8"))}
    assert launched and launched == {kernel for case in aot.CASES for kernel in case.plan}


def test_spills_are_seen(compiled: dict[str, Any]) -> None:
    """`gather_affine_normalise_kernel` with 24 registers a thread."""
    assert compiled["starved"]["registers"] <= 24
    (line,) = aot.excess(compiled["starved"], 6, aot.TARGETS[0])
    assert line.startswith("stack")


def test_the_maximum_over_tiles_carries_nan(compiled: dict[str, Any]) -> None:
    """A GPU's plain maximum drops NaN; the interpreter's does not, so its tests cannot tell."""
    assert "max.NaN.f32" in compiled["maxima"]


def test_the_bytes_of_films_are_not_flushed(compiled: dict[str, Any]) -> None:
    """They are subnormal numbers, which the interpreter's processor keeps in any case."""
    assert {"fma.rn.f32", "mul.f32"} <= {*compiled["arithmetic"]}
    assert not [name for name in compiled["arithmetic"] if ".ftz" in name]


def test_the_lines_are_those_of_the_planned_occupancy() -> None:
    """By hand: 8 programs of 4 warps are 1024 threads with 64 registers each; 228 KB / 8 - 1 KB."""
    assert aot.excess(FITS, 8, 90) == []
    assert [aot.shared_line(8, target) for target in aot.TARGETS] == [19968, 28160, 28160]
    assert aot.registers_line(3, 4) == 168 and aot.registers_line(1, 4) == 255


@pytest.mark.parametrize("more", ["registers", "stack", "local", "shared"])
def test_one_more_is_too_much(more: str) -> None:
    (line,) = aot.excess(FITS | {more: FITS[more] + 1}, 8, 90)
    assert line.startswith(more)


CODE = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/              @!P0 MUFU.EX2 R4, R5 ;
        /*0030*/                   LDG.E.U8 R6, desc[UR4][R2.64+0x1] ;
        /*0040*/               @P1 BRA 0x20 ;
        /*0050*/                   EXIT ;
        /*0060*/                   MUFU.RCP R4, R5 ;
"""


def test_instructions_are_counted_as_often_as_they_run() -> None:
    """By hand: three outside, three that run four times; what follows EXIT does not count."""
    work = sass.work(sass.body(CODE), [4])
    assert work == (3 + 3 * 4, 4, {"128": 1, "8": 4})
    with pytest.raises(ValueError, match="1 loops"):
        sass.work(sass.body(CODE), [])
