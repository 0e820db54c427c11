"""Importing bitline is cheap, and brings nothing along that is not needed."""

import json
import subprocess
import sys

import bitline

HEAVY = (
    "lightning",
    "datasets",
    "sklearn",
    "tensorboard",
    "torchmetrics",
    "pandas",
    "scipy",
    "matplotlib",
    "optuna",
    "triton",
)

PROGRAM = """
import json, sys
import torch
before = set(sys.modules)
import bitline
for name in bitline.__all__:
    getattr(bitline, name)
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_importing_bitline_and_using_every_name_loads_nothing_heavy_beyond_torch():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    assert not set(json.loads(done.stdout)) & set(HEAVY)


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
