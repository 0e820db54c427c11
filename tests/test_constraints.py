"""What is installed is pinned twice alike: by version, and by version with the hashes of its files."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def pins(name: str) -> dict[str, str]:
    """Version of each package of a file."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\]+)", (ROOT / name).read_text(), flags=re.MULTILINE)
    return {package.lower().replace("_", "-"): version for package, version in found}


def test_the_constraints_with_hashes_are_the_constraints():
    plain, hashed = pins("constraints.txt"), pins("constraints-hashes.txt")
    assert len(plain) > 90
    assert {package: hashed.get(package, "").partition("+")[0] for package in plain} == plain


def test_each_has_a_hash_and_none_an_address():
    text = (ROOT / "constraints-hashes.txt").read_text()
    entries = [entry for entry in re.split(r"(?m)^(?=[A-Za-z])", text) if entry]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in text
    assert " @ " not in text


def test_what_builds_is_bounded():
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert all(re.fullmatch(r"[a-z-]+>=[\d.]+,<\d+", each) for each in requires)
