"""docs/mapping.md shows what benchmarks/mappings.py prices, and the file of its results holds the same."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mappings(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("mappings")


def close(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return a == pytest.approx(b) if isinstance(a, float) else a == b


def test_the_table_of_the_page_is_what_the_cost_model_says(mappings):
    result, page = mappings.measure(), (ROOT / "docs/mapping.md").read_text("utf-8")
    assert "<!-- mappings -->" in page
    assert mappings.page(page, result) == page, "run python benchmarks/mappings.py --write"
    assert close(result, json.loads((ROOT / "benchmarks/results/mappings.json").read_text("utf-8")))


def test_what_the_page_says_of_its_table_holds(mappings):
    rows = {row["mapping"]: row for row in mappings.measure()["mappings"]}
    assert rows["dense"]["area_m2"] > 200 * rows["strip"]["area_m2"]
    assert rows["naive"]["energy_J"] > 5 * rows["packed"]["energy_J"]
    assert {rows[s]["conversions"] for s in ("dense", "packed", "strip")} == {rows["dense"]["conversions"]}
    assert rows["naive"]["utilization"] == 1 / 256
