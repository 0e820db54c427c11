"""Where a benchmark writes what it measured."""

import argparse
import json
from pathlib import Path
from typing import Any

from bitline.files import write_json


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Let --json name a file, or nothing for standard output."""
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write to a file, or standard output")


def write(result: dict[str, Any], target: str | None) -> None:
    """Write a result as JSON to a file, to standard output for "-", or nowhere."""
    if target == "-":
        print(json.dumps(result, indent=1))
    elif target:
        write_json(Path(target), result)
