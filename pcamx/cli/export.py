"""`pcamx export`: a trained network as files for other programs."""

import argparse
from pathlib import Path

from pcamx.catalogue import classifiers, key_of
from pcamx.cli.command import Commands, command
from pcamx.errors import PcamxError


def add(commands: Commands) -> None:
    """Add the command and its options."""
    sub = command(
        commands,
        "export",
        run,
        "write a run's network as safetensors and ONNX, with a model card",
        "pcamx export runs/demo --out demo-model && pcamx export --check demo-model",
    )
    sub.add_argument(
        "run", type=Path, metavar="RUN", help="run.folder of the config; with --check an export"
    )
    sub.add_argument(
        "--out", type=Path, metavar="FOLDER", help="a new folder; RUN/export if not given"
    )
    sub.add_argument(
        "--stage",
        type=key_of,
        choices=[entry.key for entry in classifiers()],
        help="the last finished one if not given",
    )
    sub.add_argument(
        "--check",
        action="store_true",
        help="write nothing; see that an export's copy is whole and answers here as where it was "
        "made; exits with 1 if not",
    )


def run(options: argparse.Namespace) -> None:
    from pcamx.export import check_copy, export
    from pcamx.run.folder import RunFolder

    if options.check:
        if options.out is not None or options.stage is not None:
            raise PcamxError(
                "--check writes nothing and takes the export as it is: leave out --out and --stage"
            )
        found = check_copy(options.run)
        differences = ", ".join(f"{name} {d:.1e}" for name, d in found.items())
        print(f"{options.run} is whole; largest difference from where it was made: {differences}")
        if len(found) < 2:
            print(
                "onnxruntime is not installed, so model.onnx was not run: its digest alone is right"
            )
        return
    out = options.out or RunFolder(options.run).export
    onnx = export(options.run, out, stage=options.stage)
    differences = ", ".join(f"{name} {d:.1e}" for name, d in onnx["max_abs_diff"].items())
    print(f"{out} holds model.safetensors and config.json, model.onnx and README.md")
    print(f"pcamx export --check {out} tells whether a copy is whole and answers the same")
    print(f"largest difference between ONNX and PyTorch: {differences}")
