"""`python -m bench.gpu.device`: what the machine is, and how fast it copies."""

import argparse
import sys
from typing import Any

import torch

from bench.lib import command, record
from bench.lib.record import Row
from bench.lib.timing import copy_bandwidth


def run(options: argparse.Namespace) -> None:
    """Write versions, memory and bandwidth."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    found = record.begin("gpu.device", device, {"nccl": "nvidia-nccl-cu13", "pytest": "pytest"})
    path = record.outputs("gpu.device", found, options.markdown, options.json)
    found.rows.append(Row("device", "copy", "bandwidth", copy_bandwidth(device), "GB/s"))
    notes = []
    if device.type == "cuda":
        shown = torch.cuda.get_device_properties(device)
        found.rows.append(Row("device", "memory", "size", shown.total_memory / 1e9, "GB"))
        cudnn: Any = torch.backends.cudnn
        notes = [
            f"compute capability {shown.major}.{shown.minor}",
            f"cuDNN {cudnn.version()}",
        ]
    if options.json:
        record.write_json(found, options.json)
    record.write_markdown(found, path, "Device", notes)


if __name__ == "__main__":
    made = command.parser("gpu.device", "Versions and bandwidth.", "python -m bench.gpu.device")
    sys.exit(command.main(made, run))
