"""A regression of two inputs, fitted to measurements of patients, and its evaluation."""

import math
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bitline
from bitline.chip import load
from bitline.evaluation import Evaluation

CHIP = load("example-128", ["adc.bits=5", "cell.programming.sigma=0.1"])


class TwoInputs(nn.Module):
    """Two arms of measurements, one number."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.blood = nn.Linear(4, 24), nn.Linear(6, 24)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(48, 1))

    def forward(self, body: Tensor, blood: Tensor) -> Tensor:
        return self.head(torch.cat([self.body(body), self.blood(blood)], 1))


@cache
def diabetes() -> tuple[Tensor, Tensor, Tensor]:
    """Body and blood measurements of 442 patients, scaled to deviation 1, and how the disease went on."""
    bunch: Any = load_diabetes()
    x = torch.from_numpy(bunch.data * math.sqrt(442)).float()
    return x[:, :4], x[:, 4:], torch.from_numpy(bunch.target).float().unsqueeze(1)


@cache
def regression() -> TwoInputs:
    torch.manual_seed(0)
    model, (body, blood, target) = TwoInputs(), diabetes()
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(150):
        loss = nn.functional.mse_loss(model(body[:342], blood[:342]), (target[:342] - 150) / 80)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        model.head[1].weight.mul_(80)
        model.head[1].bias.mul_(80).add_(150)
    return model.eval()


def held_out() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(x[342:] for x in diabetes())), batch_size=32)


def known() -> list[tuple[Tensor, Tensor]]:
    body, blood, _ = diabetes()
    return [(body[:64], blood[:64]), (body[64:128], blood[64:128])]


def calibration() -> list[tuple[tuple[Tensor, Tensor], None]]:
    return [(inputs, None) for inputs in known()]


@cache
def evaluated() -> Evaluation:
    return bitline.evaluate(
        regression(), CHIP, held_out(), calibration=calibration(), metric="rmse", chips=3, cause_chips=2, name="two"
    )
