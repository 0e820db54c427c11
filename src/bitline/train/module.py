"""The LightningModule: loss, optimizer, schedule and the curve of the run."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from bitline import seeds
from bitline.errors import DataError
from bitline.train.config import Schedule, TrainConfig
from bitline.train.loader import Batch


def factor(step: int, total: int, schedule: Schedule) -> float:
    """Return the learning rate of a step as a share of the largest.

    Args:
        step: from 0.
        total: steps of the run.
        schedule: ``linear`` falls from 1 to 0; ``cosine`` is half a cosine from 1 to 0; ``onecycle`` rises along a
            cosine from 1/25 to 1 in the first 30 % and falls along one to 0 (L. Smith and N. Topin, 2019,
            doi:10.1117/12.2520589, with the phases that PyTorch uses); ``steps`` is 1, from half of the run 0.1, and
            from three quarters 0.01.
    """
    done = min(step / total, 1.0)
    if schedule == "steps":
        return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
    if schedule == "linear":
        return 1 - done
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if done < 0.3:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / 0.3)) / 2
    return (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2


class Classifier(LightningModule):
    """Train a network to classify, with SGD and Nesterov momentum or with Adam, alone or after a teacher.

    Args:
        network: images to class scores.
        config: with `lr` set.
        steps: of the whole run, for the schedule.
        teacher: a trained network whose scores are targets too; it is not changed.
        rates: parameters that learn at a rate of their own, without decay, by a part of their name.
        penalty: a term of the loss beside the answers, or None for this step.
        say: given one line after each epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        *,
        steps: int,
        teacher: nn.Module | None = None,
        rates: Mapping[str, float] | None = None,
        penalty: Callable[[], Tensor | None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.steps = steps
        self.rates = dict(rates or {})
        self.penalty = penalty
        self.say = say
        # in a tuple, so that the teacher is no part of the checkpoint
        self._teacher = () if teacher is None else (teacher.eval().requires_grad_(False),)
        self.begun = False
        """whether a checkpoint, if there is one, has been taken up"""
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self._clocks = (time.perf_counter(), time.process_time())
        # sums of the epoch; tensors, so that a checkpoint in mid-epoch keeps them and no step waits for a copy
        self.register_buffer("train_sums", torch.zeros(3, dtype=torch.float64))  # loss, correct, images
        self.register_buffer("test_sums", torch.zeros(3, dtype=torch.float64))
        self.train_sums: Tensor
        self.test_sums: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores of normalized images."""
        return self.network(x)

    def on_fit_start(self) -> None:
        """Start the clocks."""
        self._clocks = (time.perf_counter(), time.process_time())

    def on_train_start(self) -> None:
        """Note that all that a checkpoint holds is in its place."""
        self.begun = True

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed what draws from the global generator (dropout), so that a resume draws the same."""
        torch.manual_seed(seeds.of_step(self.config.seed, -1, self.global_step))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        images, labels = batch
        scores = self.network(images)
        loss = functional.cross_entropy(scores.float(), labels, label_smoothing=self.config.label_smoothing)
        for teacher in self._teacher:
            with torch.no_grad():
                targets = teacher.to(self.device)(images).float()
            share = self.config.distill
            loss = (1 - share) * loss + share * distillation(scores.float(), targets, self.config.temperature)
        _count(self.train_sums, loss, scores, labels)
        self.log("train_loss", loss.detach(), prog_bar=True)
        extra = None if self.penalty is None else self.penalty()
        return loss if extra is None else loss + extra

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch of test images."""
        images, labels = batch
        scores = self.network(images)
        _count(self.test_sums, functional.cross_entropy(scores.float(), labels), scores, labels)

    def on_validation_epoch_start(self) -> None:
        """Start counting test images."""
        self.test_sums.zero_()

    def on_validation_epoch_end(self) -> None:
        """Log the test accuracy."""
        self.log("test_accuracy", self.test_sums[1] / self.test_sums[2], prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Add the epoch to the curve."""
        loss, correct, images = self.train_sums.tolist()
        test_loss, test_correct, test_images = self.test_sums.tolist()
        self.train_sums.zero_()
        self.test_sums.zero_()
        self._read_clocks()
        if not math.isfinite(loss):
            raise DataError(f"the loss is {loss} in epoch {self.current_epoch + 1}: lower lr, now {self.config.lr:g}")
        point = {
            "epoch": self.current_epoch + 1,
            "train_loss": loss / images,
            "train_accuracy": correct / images,
            "seconds": round(self.seconds, 2),
        }
        if test_images:
            point |= {"test_loss": test_loss / test_images, "test_accuracy": test_correct / test_images}
        self.curve.append(point)
        self.log_dict({key: point[key] for key in ("train_accuracy", "test_loss") if key in point})
        if self.say is not None:
            test = f"  test {point['test_accuracy']:.2%}" if test_images else ""
            self.say(
                f"epoch {point['epoch']}/{self.config.epochs}  train loss {point['train_loss']:.4f}  "
                f"train {point['train_accuracy']:.2%}{test}  {point['seconds']:.0f} s"
            )

    def configure_optimizers(self) -> Any:
        """Return the optimizer, without decay on biases and batch norm, and the schedule, stepped every batch."""
        lr, decay = self.config.lr, self.config.weight_decay
        assert lr is not None
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, p in self.network.named_parameters():
            if p.requires_grad:
                own = next((rate for part, rate in self.rates.items() if part in name), None)
                key = (lr, decay if p.ndim >= 2 else 0.0) if own is None else (own, 0.0)
                groups.setdefault(key, []).append(p)
        listed = [{"params": ps, "lr": rate, "weight_decay": wd} for (rate, wd), ps in groups.items()]
        if self.config.optimizer == "adam":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(listed, lr=lr)
        else:
            optimizer = torch.optim.SGD(listed, lr=lr, momentum=self.config.momentum, nesterov=self.config.momentum > 0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: factor(step, self.steps, self.config.schedule)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the curve and the time used so far, as plain numbers."""
        self._read_clocks()
        checkpoint["bitline"] = {"curve": self.curve, "seconds": self.seconds, "cpu_seconds": self.cpu_seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the curve and the time up again."""
        state = checkpoint["bitline"]
        self.curve = list(state["curve"])
        self.seconds, self.cpu_seconds = float(state["seconds"]), float(state["cpu_seconds"])

    def _read_clocks(self) -> None:
        now = (time.perf_counter(), time.process_time())
        self.seconds += now[0] - self._clocks[0]
        self.cpu_seconds += now[1] - self._clocks[1]
        self._clocks = now


def distillation(scores: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return the loss of a student after its teacher: T^2 KL(teacher || student) of scores divided by T.

    G. Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531.

    Args:
        scores: of the student, (batch, classes).
        targets: of the teacher, (batch, classes).
        temperature: T; softens both.
    """
    student = functional.log_softmax(scores / temperature, dim=1)
    teacher = functional.log_softmax(targets / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _count(sums: Tensor, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
    """Add a batch's loss, correct answers and images."""
    correct = (scores.argmax(1) == labels).sum()
    images = labels.numel()
    sums += torch.stack([loss.detach().double() * images, correct.double(), correct.new_tensor(images).double()])
