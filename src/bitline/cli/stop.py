"""Ctrl-C and SIGTERM: what was measured stays, one line says how to go on."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import typer

INTERRUPTED, TERMINATED = 130, 143
"""exit status: 128 and the number of the signal"""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""

    said = False
    """whether it was told how to go on"""


@contextmanager
def stoppable(advice: str) -> Generator[None]:
    """End a command that is stopped with one line and the exit status of its signal.

    Args:
        advice: how to go on.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        typer.echo(f"stopped; {advice}", err=True)
        if isinstance(stop, Terminated):
            stop.said = True
        raise typer.Exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED) from None


def _swallows(frame: FrameType | None) -> bool:
    """Tell whether Python would ignore what is raised here: within the end of an object."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@contextmanager
def terminable() -> Generator[None]:
    """Turn the first SIGTERM into `Terminated`; whatever becomes of that, the exit status is that of the signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told: list[Terminated] = []

    def on_terminate(number: int, frame: FrameType | None) -> None:
        if told:
            return
        if _swallows(frame):
            again = threading.Timer(0.05, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        told.append(Terminated())
        raise told[0]

    before = signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    except SystemExit:
        if told:
            if not told[0].said:  # before the work began, or after it was done
                typer.echo("stopped; the same command goes on, or begins again", err=True)
            raise SystemExit(TERMINATED) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
