"""What an installation downloads and takes on the disk, by extra, each in a fresh environment.

Claim: plain ``pip install bitline``, after the CPU wheel of PyTorch, takes less than 1 GB. Versions are those of
constraints.txt. Megabytes are 10^6 bytes: of wheels, and of the files that they and the byte code of them take.

python benchmarks/install.py --json benchmarks/results/install.json [--torch-index URL|none]     several minutes
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from output import add_json_option, write

ROOT = Path(__file__).parent.parent
CPU = "https://download.pytorch.org/whl/cpu"
EXTRAS = ("", "train", "data", "export", "all")


def pip(python: Path | str, *arguments: object) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", *map(str, arguments)], check=True)


def size(folder: Path, *, without: str = "-") -> int:
    """Return the bytes of the files below a folder."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(without)]
    return sum(each.stat().st_size for path in inside for each in (path.rglob("*") if path.is_dir() else [path]))


def collect(wheels: Path, index: str) -> None:
    """Download torch as README says, and build or download all else."""
    pinned = ("--constraint", ROOT / "constraints.txt", "--dest", wheels)
    pip(sys.executable, "download", "torch", *pinned, *(() if index == "none" else ("--index-url", index)))
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT)
    if not list(wheels.glob("torch-*cpu*.whl")):
        raise SystemExit(f"{index} has no CPU wheel of torch for this machine")
    pip(sys.executable, "download", "bitline[all]", *pinned, "--find-links", wheels)


def install(extra: str, wheels: Path, folder: Path) -> dict[str, Any]:
    """Install into a fresh environment, and weigh it."""
    venv.create(folder, with_pip=True)
    python, report = folder / "bin" / "python", folder / "report.json"
    what = f"bitline[{extra}]" if extra else "bitline"
    pip(python, "install", "--no-index", "--find-links", wheels, "--report", report, what)
    every = json.loads(report.read_text())["install"]
    files = [Path(unquote(urlparse(each["download_info"]["url"]).path)) for each in every]
    names = [each["metadata"]["name"] for each in every]
    place = next(folder.glob("lib/python*/site-packages"))
    largest = sorted(((size_of(python, name), name) for name in names), reverse=True)
    return {
        "extra": extra,
        "packages": len(files),
        "download_MB": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        "installed_MB": round(size(place, without="pip") / 1e6, 1),
        "largest_MB": {name: round(count / 1e6, 1) for count, name in largest[:8]},
    }


def size_of(python: Path, package: str) -> int:
    """Return the bytes of the files of one package."""
    program = "import importlib.metadata as m, sys; print(sum(f.locate().stat().st_size for f in m.files(sys.argv[1])))"
    return int(subprocess.run([python, "-c", program, package], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-index", default=CPU, help="where torch is from; none: as pip is configured")
    add_json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bitline-") as scratch:
        wheels = Path(scratch) / "wheels"
        wheels.mkdir()
        collect(wheels, options.torch_index)
        found: list[dict[str, Any]] = []
        for extra in EXTRAS:
            found.append(install(extra, wheels, Path(scratch) / (extra or "plain")))
            print(found[-1], file=sys.stderr, flush=True)
        torch = next(wheels.glob("torch-*.whl")).name
    write({"python": platform.python_version(), "torch": torch, "sizes": found}, options.json)


if __name__ == "__main__":
    main()
