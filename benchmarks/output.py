"""Where a benchmark writes what it measured."""

import argparse
import json
from pathlib import Path
from typing import Any

from bitline.files import write_json


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Let --json name a file, or nothing for standard output."""
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write to a file, or standard output")


def add_before_option(parser: argparse.ArgumentParser) -> None:
    """Let --before name a result of the same benchmark at an earlier commit."""
    parser.add_argument("--before", type=Path, metavar="FILE", help="result of an earlier commit, to stand beside")


def write(result: dict[str, Any], target: str | None, before: Path | None = None) -> None:
    """Write a result as JSON to a file, to standard output for "-", or nowhere; beside it that of an earlier commit."""
    if before is not None:
        earlier = json.loads(before.read_text())
        result["before"] = {name: value for name, value in earlier.items() if name not in ("hardware", "before")}
    if target == "-":
        print(json.dumps(result, indent=1))
    elif target:
        write_json(Path(target), result)
