"""A trained network whose scores are targets."""

import torch
from torch import Tensor, nn

from bitline.data import DataSet
from bitline.errors import DataError
from bitline.models.files import Run


class _Refed(nn.Module):
    """A network that was trained on images normalized otherwise than those that it gets.

    Args:
        network: to ask.
        scale: of an input, per channel.
        shift: of an input behind that, per channel.
    """

    def __init__(self, network: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of images, (batch, channels, height, width)."""
        return self.network(x * self.scale + self.shift)


def teacher_of(run: Run, data: DataSet) -> nn.Module:
    """Return the network of a run, which takes images as `data` normalizes them.

    Args:
        run: the teacher.
        data: that the student learns from.

    Raises:
        DataError: the teacher does not take these images, or does not tell their classes apart.
    """
    own = run.record.fed(data)
    network: nn.Module = run.model.eval()
    if (own.mean, own.std) != (data.mean, data.std):
        mean, std, own_mean, own_std = (
            torch.tensor(values, dtype=torch.float64) for values in (data.mean, data.std, own.mean, own.std)
        )
        network = _Refed(network, (std / own_std).float(), ((mean - own_mean) / own_std).float())
    images, _ = next(data.batches("test", batch_size=2))
    try:
        with torch.no_grad():
            network(images)
    except Exception as error:  # a user's own network may raise anything
        shape = tuple(images.shape)
        raise DataError(
            f"the teacher {run.record.model} does not take images {shape}: {type(error).__name__}: {error}"
        ) from error
    return network.eval()
