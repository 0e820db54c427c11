"""What a case of the fuzz suite is, and what holds for every one of them: no traceback, one clear line, ten seconds.

A case is an input and the outcome expected: `Accepted`, `Refused` or `Remarked`, each with what to look for.
"""

import contextlib
import io
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bitline.cli import main

SECONDS = 10
"""that any command on any input of this suite may take"""
LONGEST = 700
"""characters of a line that says what is wrong"""
MOST_LINES = 21
"""that say what is wrong with a chip"""


@dataclass(frozen=True)
class Refused:
    """Exit status 1 and an error that contains these words; status 2 where the command line itself is wrong."""

    words: str
    status: int = 1


@dataclass(frozen=True)
class Accepted:
    """Exit status 0, and what `check` says of the JSON that was printed, if any."""

    check: Callable[[Any], bool] = field(default=lambda _: True)


@dataclass(frozen=True)
class Remarked:
    """Exit status 0 and a remark that contains these words."""

    words: str


Outcome = Refused | Accepted | Remarked


@dataclass(frozen=True)
class Done:
    """What a command did."""

    status: int
    out: str
    err: str
    seconds: float


def bitline(*arguments: object) -> Done:
    """Run a command within this process, as the program `bitline` does; anything it raises but its exit is a fault."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    log, said = logging.getLogger("bitline"), logging.StreamHandler(err)
    log.addHandler(said)
    started = time.monotonic()
    try:
        sys.argv = ["bitline", *map(str, arguments)]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _at_most(SECONDS):
            try:
                main()
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
        log.removeHandler(said)
    return Done(status, out.getvalue(), err.getvalue(), time.monotonic() - started)


def holds(expected: Outcome, *arguments: object) -> Done:
    """Run a command and compare it with what is expected of it and of every command."""
    done = bitline(*arguments)
    told = f"status {done.status} after {done.seconds:.1f} s\n{done.err}\n{done.out[-2000:]}"
    assert done.status in (0, 1, 2), told
    assert "Traceback" not in done.err + done.out, told
    assert "object at 0x" not in done.err + done.out, told
    assert done.seconds < SECONDS, told
    match expected:
        case Refused(words, status):
            assert done.status == status, told
            assert words in (" ".join(done.err.replace("│", " ").split()) if status == 2 else done.err), told
            if status == 1:
                lines = done.err.strip().splitlines()
                begin = next(i for i, line in enumerate(lines) if line.startswith("error: "))
                assert len(lines) - begin <= MOST_LINES, told
                assert max(map(len, lines)) <= LONGEST, told
            assert done.out.strip() == "", told
        case Accepted(check):
            assert done.status == 0, told
            content = strict_json(done.out) if done.out.startswith("{") else None
            assert check(content), told
        case Remarked(words):
            assert done.status == 0, told
            assert words in done.err, told
    return done


def strict_json(text: str) -> Any:
    """Read JSON as its standard has it: no NaN, no infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in JSON")

    content = json.loads(text, parse_constant=refuse)
    assert all(abs(number) < 1e300 for number in numbers(content))
    return content


def numbers(content: object) -> Iterator[float]:
    """Every number of JSON content."""
    if isinstance(content, dict):
        for each in content.values():
            yield from numbers(each)
    elif isinstance(content, list):
        for each in content:
            yield from numbers(each)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield content


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def label(value: object) -> str:
    """Short name of a part of a case, the same in every process."""
    return type(value).__name__.lower() if isinstance(value, Outcome) else str(value)[-60:]
