"""All results as one page in Markdown."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from bench.gpu import work
from bench.gpu.jobs import PARTS, Job
from bench.gpu.work import Result


def page(jobs: Sequence[Job], out: Path, where: str) -> str:
    """Return what became of each job, then each part's tables, or the ends of its logs."""
    results = {job.name: work.read(job.name, out) for job in jobs}
    lines = ["# An hour of a GPU", "", where, "", "| job | result | seconds |", "|---|---|---|"]
    lines += [
        f"| {name} | {_said(result)} | {_seconds(result)} |" for name, result in results.items()
    ]
    for part, title in PARTS.items():
        found = {job.name: results[job.name] for job in jobs if job.part == part}
        if any(found.values()):
            lines += ["", f"## {part}. {title}"]
        for name, result in found.items():
            if result is not None:
                lines += ["", f"### {name}", "", f"    {shlex.join(result.command)}", ""]
                lines += _shown(name, result, out)
    return "\n".join(lines) + "\n"


def _said(result: Result | None) -> str:
    if result is None:
        return "not run"
    if result.passed:
        return "passed"
    return "took too long" if result.code == -1 else f"failed ({result.code})"


def _seconds(result: Result | None) -> str:
    return f"{result.seconds:.0f}" if result else ""


def _shown(name: str, result: Result, out: Path) -> list[str]:
    """A bench's tables where it passed, else the end of the log."""
    tables = out / f"{name}.md"
    if not (result.passed and tables.is_file()):
        return ["```", *work.tail(name, out), "```"]
    text = tables.read_text(encoding="utf-8").split("\n", 1)[1].strip()  # without its title
    return re.sub(r"^#", "###", text, flags=re.MULTILINE).splitlines()
