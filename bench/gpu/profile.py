"""`python -m bench.gpu.profile --stage 2`: where a training step's time goes, operator by operator.

Beside the tables it leaves the trace, which chrome://tracing and Perfetto show.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from bench.lib import command, loops, record
from bench.lib.loops import Work
from bench.lib.record import Row
from pcamx import engine
from pcamx.catalogue import classifiers, key_of, trainable

WARM, STEPS, SHOWN = 3, 3, 40


def measure(work: Work, trace: Path) -> list[Row]:
    """Measure the milliseconds a step of what takes most, on the GPU or without one on the CPU."""
    step = loops.ours(work, 1)
    for _ in range(WARM):
        step()
    gpu = work.ranks.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=kinds) as found:
        for _ in range(STEPS):
            step()
    found.export_chrome_trace(str(trace))
    case = f"{trainable(work.stage).title}, B {work.batch}, {work.pixels} px, {work.precision}"
    clock = "self_device_time_total" if gpu else "self_cpu_time_total"
    events = [e for e in found.key_averages() if not gpu or on_device(e)]
    ranked = sorted(events, key=lambda e: float(getattr(e, clock)), reverse=True)
    total = sum(float(getattr(e, clock)) for e in ranked)
    rows = []
    for event in ranked[:SHOWN]:
        spent = float(getattr(event, clock))
        if spent > 0:
            rows.append(Row(case, event.key, "time", spent / 1000 / STEPS, "ms"))
            rows.append(Row(case, event.key, "calls", event.count / STEPS, ""))
            rows.append(Row(case, event.key, "share", 100 * spent / total, "%"))
    return rows


def on_device(event: Any) -> bool:
    """Tell whether an event is a GPU's own: the operator that launched it has its time as well."""
    return event.device_type.name != "CPU" and not getattr(event, "is_user_annotation", False)


def run(options: argparse.Namespace) -> None:
    """Profile one stage; write the tables and, beside them, the trace."""
    ranks = engine.start()
    found = record.begin("gpu.profile", ranks.device)
    path = record.outputs("gpu.profile", found, options.markdown, options.json)
    precision = "bf16" if ranks.device.type == "cuda" else "fp32"
    work = Work(options.stage, options.films, options.pixels, precision, ranks)
    found.rows.extend(measure(work, path.with_suffix(".trace.json")))
    engine.stop()
    if options.json:
        record.write_json(found, options.json)
    record.write_markdown(found, path, "Profile of a step", [f"of {STEPS} steps, ZeRO-1, eager"])


if __name__ == "__main__":
    made = command.parser(
        "gpu.profile", "Profile a training step.", "python -m bench.gpu.profile --stage 2"
    )
    stages = [entry.key for entry in classifiers()]
    made.add_argument("--stage", type=key_of, choices=stages, default=stages[0])
    made.add_argument("--films", type=int, default=256, help="of a batch (%(default)s)")
    made.add_argument("--pixels", type=int, default=320, help="side of a film (%(default)s)")
    sys.exit(command.main(made, run))
