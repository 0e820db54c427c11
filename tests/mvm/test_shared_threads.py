"""Threads share the work of a product and change nothing of it."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bitline import load_chip
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mvm import adc, native
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product

pytestmark = pytest.mark.skipif(not native.paths(), reason="native kernels are not built")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def layer(rows: int, cols: int) -> tuple[native.Plan, Product]:
    product = Product(dense(Matmul("it", "conv2d", rows, cols), load_chip("rram-22nm")))
    levels = torch.randint(0, 4, (1, 1, 4, rows, cols), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return native.Plan(Crossbars(product, levels), adc.full(product), native.paths()[0]), product


@pytest.mark.parametrize(("vectors", "rows", "cols"), [(1, 40, 5), (700, 150, 70), (65, 300, 200), (5000, 20, 65)])
def test_any_number_of_threads_gives_the_same_bits(threads, vectors, rows, cols):
    plan, _ = layer(rows, cols)
    x = torch.randint(0, 256, (1, vectors, 1, rows), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    threads(1)
    expected = plan.multiply(x, 1)[0]
    for count in (2, 3, 7):
        threads(count)
        assert torch.equal(plan.multiply(x, 1)[0], expected)


def test_threads_are_those_of_pytorch_where_it_uses_openmp():
    has = sys.platform == "linux" and "ATen parallel backend: OpenMP" in torch.__config__.parallel_info()
    assert native.threads() == ("OpenMP of PyTorch" if has else "new threads")


def test_products_asked_for_by_several_threads_at_once_do_not_mix(threads):
    threads(2)
    plan, _ = layer(128, 64)
    inputs = [torch.randint(0, 256, (1, 900, 1, 128)).to(torch.uint8) for _ in range(6)]
    expected = [plan.multiply(x, 1)[0] for x in inputs]
    with ThreadPoolExecutor(3) as pool:
        got = list(pool.map(lambda x: plan.multiply(x, 1)[0], inputs))
    assert all(map(torch.equal, got, expected))
