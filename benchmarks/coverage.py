"""Claim: any network of torchvision, timm and transformers converts, and answers no worse than plain quantization.

Of each network, with random weights, randomized norms and no branch at zero: whether it converts; which share of its
multiplications is on crossbars, counted at aten level beside the report of the conversion, and where the two disagree;
the error of its answers while converted layers compute in floating point, on an ideal, lossless chip of 8 bits, of 8
bits with zero points of inputs, and of 16, and of plain affine quantization to 8 bits; CPU seconds of one thread; and
what stays digital, why. Errors are root mean squares over the deviation of the answers.

Each network is a process of its own with a limit of time and memory; what the file of results holds is not measured
again, so that a run that was stopped goes on. It needs timm, torchvision and transformers: `make coverage`.

    python benchmarks/coverage.py [--json FILE] [--only NAME ...] [--again] [--seconds 900] [--gigabytes 8] [--choose]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from coverage_networks import Network, choose, networks
from coverage_one import measure

from bitline.files import write_json

RESULT = Path(__file__).parent / "results" / "coverage.json"
_PACKAGES = ("torch", "torchvision", "timm", "transformers")


def child(network: Network) -> None:
    """Measure one network, and print each finding as a line."""
    torch.set_num_threads(1)

    def say(key: str, value: Any) -> None:
        print(json.dumps([key, value]), flush=True)

    try:
        measure(network, say)
    except Exception as error:  # of whatever network
        reason = " ".join(str(error).split())[:400]
        say("failure", f"{type(error).__name__}: {reason}")


def measured(network: Network, seconds: float, gigabytes: float) -> dict[str, Any]:
    """Measure one network in a process of its own."""
    command = [sys.executable, __file__, "--child", *network]
    out = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
    started, peak, stopped = time.monotonic(), 0.0, None
    while process.poll() is None:
        peak = max(peak, _resident(process.pid))
        if time.monotonic() - started > seconds:
            stopped = f"stopped after {seconds:g} s"
        elif peak > gigabytes * 2**30:
            stopped = f"stopped at {gigabytes:g} GiB of memory"
        if stopped:
            process.kill()
            process.wait()
            break
        time.sleep(0.2)
    out.seek(0)
    found: dict[str, Any] = {}
    for line in out:
        if line.startswith('["'):
            key, value = json.loads(line)
            found[key] = value
    stage = found.pop("stage", "start")
    if stage is not None and "failure" not in found:
        found["failure"] = stopped or f"ended with {process.returncode}"
    if stage is not None:
        found["failed_at"] = stage
    known = {"name": network.name, "source": network.source, "family": network.family, "converted": stage is None}
    return {**known, **found, "peak_GB": round(peak / 2**30, 2)}


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0.0


def versions() -> dict[str, str]:
    """Of the packages whose networks are tried."""
    from importlib.metadata import version

    return {name: version(name) for name in _PACKAGES}


def main() -> None:
    """Measure what is not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULT, help="file of results, which is added to")
    parser.add_argument("--only", nargs="*", help="names of networks")
    parser.add_argument("--again", action="store_true", help="also what is measured; alone: what failed")
    parser.add_argument("--seconds", type=float, default=900, help="limit of a network")
    parser.add_argument("--gigabytes", type=float, default=8, help="limit of a network")
    parser.add_argument("--choose", action="store_true", help="write anew which constructors of timm are tried")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(Network(*options.child))
        return
    if options.choose:
        choose()
        return
    os.nice(19 - os.nice(0))
    result = json.loads(options.json.read_text()) if options.json.is_file() else {"models": []}
    done = {(each["source"], each["name"]): each for each in result["models"]}
    for network in networks():
        known = done.get((network.source, network.name))
        wanted = network.name in options.only if options.only else True
        if not wanted or (known is not None and not (options.again and (options.only or "failure" in known))):
            continue
        found = measured(network, options.seconds, options.gigabytes)
        done[network.source, network.name] = found
        short = found.get("failure") or f"{found['mac_share']:.3f} {found['error']:.4f} {found['affine_error']:.4f}"
        print(network.source, network.name, short, flush=True)
        order = sorted(done.values(), key=lambda each: (each["source"], each["family"], each["name"]))
        write_json(options.json, {"models": order, "versions": versions()})


if __name__ == "__main__":
    main()
