import pytest
import torch
from torch import nn

from bitline.train.bound import BoundedGradient


def test_the_gradient_of_each_group_is_bounded_by_itself():
    small, large = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4))
    small.grad, large.grad = torch.full((3,), 0.1), torch.full((4,), 50.0)
    optimizer = torch.optim.AdamW([{"params": [small]}, {"params": [large]}])

    BoundedGradient(norm=2.0).on_before_optimizer_step(None, None, optimizer)

    assert small.grad.tolist() == pytest.approx([0.1] * 3)
    assert large.grad.tolist() == pytest.approx([1.0] * 4)
