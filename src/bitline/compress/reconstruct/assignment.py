"""Which channels go to which group of a group convolution: consecutive, interleaved, or those that belong together.

Dropping the weight from input i to output o loses about |W[o, i]|^2 E[x_i^2] of an output's power, so the groups sought
keep most of it. Given the groups of the inputs, the best balanced groups of the outputs are a linear assignment problem
(H. Kuhn, 1955, doi:10.1002/nav.3800020109), and the other way round; the two alternate until nothing is gained.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitline.errors import ConversionError, nearest
from bitline.extras import need

Kind = Literal["best", "diagonal", "shuffle"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STARTS, FEW, MANY = 8, 1, 1024
"""random starts besides the two fixed assignments, and how many where there are many channels"""
GAIN = 1e-3
"""relative gain of a round below which no further one is made"""
AT_ONCE = 512
"""channels in one linear assignment problem; more are dealt to several"""

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Assignment:
    """Channels in the order in which a group convolution takes them, the groups one after another.

    Args:
        inputs: channel of each place, int64, (in_channels,).
        outputs: as inputs, (out_channels,).
        kept: share of the importance that lies inside of groups.
    """

    inputs: Tensor
    outputs: Tensor
    kept: float


def check_kind(kind: str) -> None:
    """Refuse an unknown kind of assignment.

    Raises:
        ConversionError: with those allowed.
    """
    if kind not in KINDS:
        raise ConversionError(f"assignment is {kind!r}; allowed: {', '.join(KINDS)}{nearest(kind, KINDS)}")


def assign(importance: Tensor, groups: int, kind: Kind, *, seed: int = 0) -> Assignment:
    """Deal the channels of a layer to groups of equal size.

    Args:
        importance: of the weights from an input to an output channel, at least 0, (out_channels, in_channels).
        groups: divides both.
        kind: ``"diagonal"``: consecutive channels; ``"shuffle"``: each group takes inputs from all over, as after the
            channel shuffle of ShuffleNet (arXiv:1707.01083); ``"best"``: those that keep most importance.
        seed: of the random starts of ``"best"``.

    Returns:
        The assignment; ``"best"`` keeps at least as much as the two others.
    """
    outputs, inputs = importance.shape
    table: Floats = importance.double().numpy()
    ins, outs = np.arange(inputs) * groups // inputs, np.arange(outputs) * groups // outputs
    shuffled = np.empty_like(ins)
    shuffled[np.arange(inputs).reshape(groups, -1).T.ravel()] = ins
    if kind == "diagonal":
        return _assignment(table, ins, outs)
    if kind == "shuffle":
        return _assignment(table, shuffled, outs)
    rng = np.random.default_rng(seed)
    starts = [ins, shuffled, *(rng.permutation(ins) for _ in range(STARTS if max(inputs, outputs) <= MANY else FEW))]
    candidates = [_assignment(table, *_improve(table, groups, start, outs, rng)) for start in starts]
    return max(candidates, key=lambda assignment: assignment.kept)


def _assignment(table: Floats, ins: Labels, outs: Labels) -> Assignment:
    kept = float(table[outs[:, None] == ins].sum() / max(float(table.sum()), np.finfo(float).tiny))
    inputs, outputs = (torch.from_numpy(np.argsort(labels, kind="stable")) for labels in (ins, outs))
    return Assignment(inputs, outputs, kept)


def _improve(table: Floats, groups: int, ins: Labels, outs: Labels, rng: np.random.Generator) -> tuple[Labels, Labels]:
    """Alternate between outputs and inputs until nothing is gained."""
    kept = _assignment(table, ins, outs).kept
    while True:
        outs = _deal(table @ np.eye(groups)[ins], outs, rng)
        ins = _deal(table.T @ np.eye(groups)[outs], ins, rng)
        now = _assignment(table, ins, outs).kept
        if now <= kept * (1 + GAIN):
            return ins, outs
        kept = now


def _deal(gain: Floats, labels: Labels, rng: np.random.Generator) -> Labels:
    """Deal channels to groups of equal size for the most gain, (channels, groups); never for less than they have."""
    need("grouping channels", "train", "scipy")
    from scipy.optimize import linear_sum_assignment

    channels, groups = gain.shape
    size = channels // groups
    members: Any = rng.permuted(np.argsort(labels, kind="stable").reshape(groups, size), axis=1)
    dealt = labels.copy()
    # A part holds as many channels of one group as of any other, so that it can be dealt out by itself.
    for part in np.array_split(members, min(size, -(-channels // AT_ONCE)), axis=1):
        who = np.sort(part.ravel())
        rows, places = linear_sum_assignment(np.repeat(gain[who], part.shape[1], axis=1), maximize=True)
        dealt[who[rows]] = places // part.shape[1]
    return dealt
