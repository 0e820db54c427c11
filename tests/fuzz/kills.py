"""Kill a command at random moments, go on with it, and compare what it leaves with an undisturbed run.

    python tests/fuzz/kills.py --kills 40 --jobs 2 --out /tmp/kills [--only auto --only train]

Every kill leaves a line of JSON in `--out`; the same command goes on where it was and prints the table of all.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitline import manifest
from bitline.files import RUN_MANIFEST, read_tensors

SHARED = ("--chips=1", "--images=32", "--threads=1")
ON_CHIP = ("--chip=example-128", "--set=adc.bits=5", *SHARED, "--calibration-images=64", "--batch-size=32")
LESS = ("--epoch-images=256", "--test-images=32", "--checkpoint-every=2", "--precision=32-true")
TRAIN = ("train", "lenet5", "--data=digits", "--threads=1", "--precision=32-true", "--batch-size=64")
COMMANDS: dict[str, Sequence[str]] = {
    "train": (*TRAIN, "--epochs=3", "--checkpoint-every=5", "--out=OUT"),
    "psum-aware": ("optimize", "psum-aware", "BASE", *ON_CHIP, *LESS, "--epochs=1", "--chip-epochs=2", "--out=OUT"),
    "auto": (
        *("optimize", "auto", "BASE", *ON_CHIP, *LESS, "--epochs=1", "--chip-epochs=1", "--out=OUT"),
        *("--trials=8", "--front=2", "--proxy-steps=2", "--proxy-images=32", "--structure-images=64"),
    ),
    "crimp": (
        *("optimize", "crimp", "BASE", "--chip=crimp-32nm", *SHARED, "--calibration-images=64", "--batch-size=32"),
        *(*LESS, "--epochs=4", "--chip-epochs=1", "--settle-epochs=1", "--sparsity=0.3", "--out=OUT"),
    ),
    "study": (
        *("study", "partial-sums", "BASE", *SHARED, "--calibration-images=64", "--out=OUT"),
        *("--tile-rows=32,64", "--rows=64,128", "--bits=4,6", "--ranges=full,layer"),
    ),
    "evaluate": ("evaluate", "BASE", "--chips=3", "--images=256", "--threads=1", "--json=OUT/evaluation.json"),
}
"""what is killed; OUT is a folder of its own, BASE a network that was trained before"""
RESUMED = tuple(name for name in COMMANDS if name != "evaluate")
TIMES = ("seconds", "cpu_seconds", "timing", "training_s", "commit", "commits")
"""what may differ"""
IMPORTS = 2.0
"""seconds of the processor before a command begins, about"""
LONGEST = 600
"""seconds that a command may take"""


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody killed.

    Args:
        folder: that holds it.
        seconds: of the processor from the first sign of work to its end.
    """

    folder: Path
    seconds: float


@dataclass(frozen=True)
class Kill:
    """What came of one command that was killed.

    Args:
        command: its name.
        number: of the kill.
        signals: that were sent, and the share of the work after which each came.
        statuses: exit statuses of the processes, the last one of that which ended by itself.
        wrong: what is not as in the undisturbed run; empty: nothing.
    """

    command: str
    number: int
    signals: list[tuple[str, float]]
    statuses: list[int]
    wrong: list[str]


def base(out: Path) -> Path:
    """Train the network that all commands but `train` begin with, once."""
    folder = out / "base"
    if not (folder / RUN_MANIFEST).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        arguments = [*TRAIN, "--epochs=8", f"--out={folder}"]
        subprocess.run(_command(arguments), check=True, capture_output=True, env=_environment())
    return folder


def undisturbed(name: str, out: Path) -> Undisturbed:
    """Run a command to its end, once."""
    folder, times = out / name / "undisturbed", out / name / "undisturbed.json"
    if not times.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        process = _start(name, folder, base(out), resume=False)
        _wait_for(folder, process)
        spent = _work(process, LONGEST)
        if process.returncode:
            raise RuntimeError(f"{name} does not run at all: {_said(folder)}")
        times.write_text(json.dumps({"seconds": spent}))
    return Undisturbed(folder, json.loads(times.read_text())["seconds"])


def kill(name: str, number: int, whole: Undisturbed, out: Path, *, seed: int = 0) -> Kill:
    """Kill a command once or twice, go on with it, and compare; every third kill is a SIGTERM."""
    drawn = random.Random(f"{seed} {name} {number}")
    folder = out / name / f"kill{number:03d}"
    shutil.rmtree(folder, ignore_errors=True)
    signals: list[tuple[str, float]] = []
    statuses: list[int] = []
    wrong: list[str] = []
    for _ in range(2 if drawn.random() < 0.3 else 1):
        which = signal.SIGTERM if number % 3 == 2 else signal.SIGKILL
        share = drawn.random()
        process = _start(name, folder, out / "base", resume=name in RESUMED and bool(statuses))
        working = _wait_for(folder, process)
        _work(process, share * whole.seconds)
        if process.poll() is None:
            process.send_signal(which)
        statuses.append(process.wait(LONGEST))
        signals.append((which.name, share))
        done = _complete(name, folder)  # what comes in the last moments of a process finds Python gone
        wrong += _of_signal(which, process.returncode, _said(folder), working=working and not done)
    process = _start(name, folder, out / "base", resume=name in RESUMED)
    statuses.append(process.wait(LONGEST))
    if process.returncode:
        wrong.append(f"the resume ends with {process.returncode}: {_said(folder)[-500:]}")
    else:
        wrong += list(compare(folder, whole.folder))
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
        _log(folder).unlink(missing_ok=True)
    return Kill(name, number, signals, statuses, wrong)


def _of_signal(which: signal.Signals, status: int, said: str, *, working: bool) -> Iterator[str]:
    if "Traceback" in said:
        yield f"a traceback: {said[-500:]}"
    if which == signal.SIGTERM and working and status not in (0, 143):
        yield f"SIGTERM ends with {status}"
    if status == 143 and "stopped; " not in said:
        yield "SIGTERM says nothing"


def compare(folder: Path, expected: Path) -> Iterator[str]:
    """Say where two folders differ: weights and ranges bit for bit, JSON but for times, and what was left behind."""
    names = [_names(each) for each in (folder, expected)]
    if names[0] != names[1]:
        yield f"files {sorted(names[0] ^ names[1])}"
    for name in sorted(names[0] & names[1]):
        if name.endswith(".safetensors"):
            yield from _tensors(folder / name, expected / name, name)
        if name.endswith(".json") and _content(folder, name) != _content(expected, name):
            yield name
    for path in folder.rglob(RUN_MANIFEST):
        yield from (f"{path}: {file} {what}" for file, what in manifest.changes(path.parent).items())
    for path in folder.rglob("*"):
        if path.name.endswith((".tmp", ".part", ".lock")):
            yield f"{path.name} was left behind"


def _tensors(path: Path, expected: Path, name: str) -> Iterator[str]:
    """Name tensors that differ by a bit; what a header says comes in any order."""
    mine, theirs = read_tensors(path), read_tensors(expected)
    if mine.metadata != theirs.metadata or mine.tensors.keys() != theirs.tensors.keys():
        yield f"{name}: header"
    for key in mine.tensors.keys() & theirs.tensors.keys():
        a, b = (each.tensors[key] for each in (mine, theirs))
        if a.dtype != b.dtype or a.shape != b.shape or a.numpy().tobytes() != b.numpy().tobytes():
            yield f"{name}: {key}"


def _names(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in paths if not {"logs", "checkpoints"} & set(path.parts) and path.suffix != ".journal"}


def _content(folder: Path, name: str) -> Any:
    content = json.loads((folder / name).read_text().replace(str(folder), "OUT"))
    if Path(name).name == RUN_MANIFEST:
        return sorted(content["files"])
    return _without_times(content)


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_times(value) for key, value in content.items() if key not in TIMES}
    return [_without_times(each) for each in content] if isinstance(content, list) else content


def _start(name: str, folder: Path, network: Path, *, resume: bool) -> "subprocess.Popen[bytes]":
    if name not in RESUMED:
        folder.mkdir(parents=True, exist_ok=True)
    arguments = [each.replace("OUT", str(folder)).replace("BASE", str(network)) for each in COMMANDS[name]]
    command = _command([*arguments, *(["--resume"] if resume else [])])
    with _log(folder).open("wb") as log:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=_environment())


def _log(folder: Path) -> Path:
    """Where a process that works in a folder says something."""
    return folder.with_name(f"{folder.name}.log")


def _said(folder: Path) -> str:
    return _log(folder).read_text(errors="replace")


def _complete(name: str, folder: Path) -> bool:
    """Tell whether all results are there."""
    last = {"study": "study.html", "evaluate": "evaluation.json"}.get(name, RUN_MANIFEST)
    return (folder / last).is_file()


def _work(process: "subprocess.Popen[bytes]", seconds: float) -> float:
    """Let a process work for some seconds of the processor, or to its end, and return those that it took."""
    began = spent = _spent(process)
    while process.poll() is None and spent - began < seconds:
        time.sleep(0.01)
        spent = max(spent, _spent(process))
    return spent - began


def _spent(process: "subprocess.Popen[bytes]") -> float:
    """Seconds of the processor that a process has taken; those of the clock where the system does not say."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0 if Path("/proc/self/stat").exists() else time.monotonic()


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "bitline", *arguments]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _wait_for(folder: Path, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until a process has begun to work in its folder; False where that cannot be seen, or it ended before."""
    if folder.exists():
        _work(process, IMPORTS)
        return False
    while process.poll() is None and not folder.exists():
        time.sleep(0.01)
    return process.poll() is None


def table(kills: Sequence[Kill]) -> str:
    """Lay out what came of all kills, a line for each command, then each one that went wrong."""
    lines = [f"{'command':12} {'kills':>6} {'KILL':>6} {'TERM':>6} {'as undisturbed':>15}"]
    for name in COMMANDS:
        mine = [each for each in kills if each.command == name]
        sent = [which for each in mine for which, _ in each.signals]
        same = sum(not each.wrong for each in mine)
        counts = f"{len(mine):6} {sent.count('SIGKILL'):6} {sent.count('SIGTERM'):6} {same:15}"
        lines.append(f"{name:12} {counts}")
    lines += [f"{each.command} {each.number} {each.signals}: {'; '.join(each.wrong)}" for each in kills if each.wrong]
    return "\n".join(lines)


def main() -> int:
    """Kill, and print the table; 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--kills", type=int, default=40, help="of each command")
    parser.add_argument("--jobs", type=int, default=1, help="commands at once")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", action="append", choices=list(COMMANDS), help="one command; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="where runs and results are kept")
    options = parser.parse_args()
    names: list[str] = options.only or list(COMMANDS)
    options.out.mkdir(parents=True, exist_ok=True)
    out: Path = options.out.resolve()
    base(out)
    for name in names:
        (out / name).mkdir(exist_ok=True)
        undisturbed(name, out)

    def one(name: str, number: int) -> Kill:
        place = out / name / f"kill{number:03d}.{options.seed}.json"
        if place.is_file():
            return Kill(**json.loads(place.read_text()))
        done = kill(name, number, undisturbed(name, out), out, seed=options.seed)
        place.write_text(json.dumps(asdict(done)))
        print(f"{name} {number}: {'; '.join(done.wrong) or 'as undisturbed'}", flush=True)
        return done

    tasks: list[Callable[[], Kill]] = [
        lambda name=name, number=number: one(name, number) for number in range(options.kills) for name in names
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        kills = list(pool.map(lambda task: task(), tasks))
    print(table(kills))
    return int(any(each.wrong for each in kills))


if __name__ == "__main__":
    sys.exit(main())
