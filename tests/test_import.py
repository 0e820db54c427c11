"""Importing bitline is cheap, and brings nothing along that is not needed."""

import json
import subprocess
import sys

import bitline

HEAVY = ("lightning", "datasets", "plotly", "sklearn", "tensorboard", "torchmetrics", "pandas", "scipy", "matplotlib")

PROGRAM = """
import json, sys, time
import torch
before, began = set(sys.modules), time.process_time()
import bitline
alone = time.process_time() - began
for name in bitline.__all__:
    getattr(bitline, name)
everything = time.process_time() - began
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps({"alone": alone, "everything": everything, "new": sorted(new)}))
"""


def fresh() -> dict:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_importing_bitline_and_using_every_name_costs_little_beyond_torch_and_loads_nothing_heavy():
    runs = [fresh() for _ in range(3)]
    for run in runs:
        assert not set(run["new"]) & set(HEAVY)
    # CPU time, and the least of several runs: what else the machine does must not count.
    assert min(run["alone"] for run in runs) < 0.05
    assert min(run["everything"] for run in runs) < 0.3


def test_importing_bitline_alone_does_not_even_load_torch():
    program = "import sys, bitline; print('torch' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_public_name_is_there_and_no_other():
    for name in bitline.__all__:
        assert getattr(bitline, name) is not None
        assert name in dir(bitline)
    assert bitline.__version__.count(".") == 2
    assert not hasattr(bitline, "nothing")
