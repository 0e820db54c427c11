"""What tests of evaluations share: the digits, a small network fitted to them, and what a terminal shows."""

import io
from functools import cache

import torch
from rich.console import Console
from torch import nn

from bitline import data as datasets
from bitline.evaluation import Evaluation
from bitline.report import print_evaluation


@cache
def digits() -> datasets.DataSet:
    return datasets.load("digits")


@cache
def network() -> nn.Module:
    """A small network, fitted well enough that a chip can spoil it."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    images = digits().normalize(digits().train_images)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(images), digits().train_labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def printed(evaluation: Evaluation) -> str:
    console = Console(record=True, width=160, file=io.StringIO())
    print_evaluation(evaluation, console)
    return console.export_text()
