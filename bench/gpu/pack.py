"""`python -m bench.gpu.pack`, or `make gpu-pack`: what a GPU machine without network installs.

Wheels of all that pyproject.toml names, for Python 3.12 on Linux, no file above 60 MB, and a script
that puts them together and installs them. Nothing of it is run here.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from bench.lib import command
from pcamx.errors import PcamxError
from pcamx.output import make_folder, write_text

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = "3.12"
# pip takes each for itself alone: a machine of glibc 2.28 also runs what was built for older ones.
GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_24", "manylinux_2_17")
PLATFORMS = (*GLIBC, "manylinux2014", "manylinux_2_12", "manylinux2010", "manylinux_2_5")
SOURCE_ONLY = ("deepspeed",)
"""Packages without wheels, whose own is the same for every Python and machine: built here."""
LARGEST = 60 * 10**6  # bytes of a file
INSTALL = f"""\
#!/bin/sh
# Puts the wheels together, checks them and installs them into ./.venv, without network.
set -eu
cd "$(dirname "$0")"
for first in wheels/*.part000; do
    [ -e "$first" ] || continue
    whole="${{first%.part000}}"
    cat "$whole".part* > "$whole"
    rm "$whole".part*
done
(cd wheels && sha256sum --quiet --check ../SHA256SUMS)
python{PYTHON} -m venv .venv
.venv/bin/pip install --no-index --find-links wheels --requirement requirements.txt
echo "in the checkout: PYTHONPATH=. $(pwd)/.venv/bin/python -m bench.gpu"
"""


def requirements() -> list[str]:
    """Return what pyproject.toml asks for, the dev extra and all that it names included."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def expanded(lines: Sequence[str]) -> Iterator[str]:
        for line in lines:
            if named := re.fullmatch(r"pcamx\[(.*)\]", line):
                for extra in named[1].split(","):
                    yield from expanded(extras[extra.strip()])
            else:
                yield line

    return list(dict.fromkeys([*project["dependencies"], *expanded(extras["dev"])]))


def download(packages: Sequence[str], wheels: Path) -> None:
    """Fetch the wheels of ``packages`` and of all that they need, using what lies there already.

    Raises PcamxError that names what has no wheel.
    """
    pip = [sys.executable, "-m", "pip"]
    for package in packages:
        if re.split(r"\W", package)[0] in SOURCE_ONLY:
            _call([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), package], wheels)
    target = ["--python-version", PYTHON, "--implementation", "cp", "--only-binary", ":all:"]
    for platform in PLATFORMS:
        target += ["--platform", f"{platform}_x86_64"]
    places = ["--dest", str(wheels), "--find-links", str(wheels)]
    _call([*pip, "download", "--quiet", *target, *places, *packages], wheels)


def _call(words: Sequence[str], wheels: Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        raise PcamxError(
            f"{(told or ['pip failed'])[-1]}; for a package without a wheel, build one on a "
            f"machine like the GPU's (pip wheel --no-deps PACKAGE), put it into {wheels}, run again"
        )


def split(folder: Path, largest: int = LARGEST) -> list[str]:
    """Cut files above ``largest`` bytes into NAME.part000 and on; return lines for sha256sum."""
    lines = []
    for path in sorted(folder.glob("*.whl")):
        digest, parts = sha256(), 0
        with path.open("rb") as file:
            while piece := file.read(largest):
                digest.update(piece)
                if path.stat().st_size > largest:
                    path.with_name(f"{path.name}.part{parts:03}").write_bytes(piece)
                    parts += 1
        lines.append(f"{digest.hexdigest()}  {path.name}")
        if parts:
            path.unlink()
    return lines


def run(options: argparse.Namespace) -> None:
    """Fill the folder."""
    out, packages = options.out.absolute(), options.packages or requirements()
    make_folder(out / "wheels")
    download(packages, out / "wheels")
    write_text(out / "SHA256SUMS", "\n".join(split(out / "wheels")) + "\n")
    write_text(out / "requirements.txt", "\n".join(packages) + "\n")
    write_text(out / "install.sh", INSTALL)
    files = list((out / "wheels").iterdir())
    size = sum(path.stat().st_size for path in files)
    print(f"{out}: {len(files)} files, {size / 1e9:.1f} GB; there: sh install.sh")


if __name__ == "__main__":
    made = argparse.ArgumentParser(prog="python -m bench.gpu.pack", description=__doc__)
    made.add_argument("--out", type=Path, default=Path("build/gpu-pack"), metavar="FOLDER")
    made.add_argument("--packages", nargs="+", help="(default: all that pyproject.toml names)")
    sys.exit(command.main(made, run))
