import json

import pytest
import torch
from torch import nn

from bitline import load_chip, to_crossbar
from bitline.errors import DataError
from bitline.models.files import load_run
from bitline.nn import IDEAL, crossbar_layers
from bitline.train import checked
from bitline.train.module import Classifier, distillation
from bitline.train.reprogram import Reprogram
from bitline.train.run import train

TINY = {"model": "lenet5", "data": "digits", "batch_size": 64, "threads": 1, "precision": "32-true"}


@pytest.fixture(scope="module")
def teacher(once):
    return once("teacher", lambda folder: train(checked(**TINY, epochs=12, out=folder)))


def agreement(a, b):
    images = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((load_run(a).model(images).argmax(1) == load_run(b).model(images).argmax(1)).float().mean())


def test_a_student_of_a_teacher_answers_like_it_where_labels_say_nothing(teacher, tmp_path):
    settings = {**TINY, "epochs": 4, "seed": 5, "lr": 0.005, "optimizer": "adam", "temperature": 2.0}

    alone = train(checked(**settings, out=tmp_path / "alone"))
    taught = train(checked(**settings, teacher=teacher, distill=1.0, out=tmp_path / "taught"))

    assert agreement(taught, teacher) > agreement(alone, teacher) + 0.05


def test_distillation_is_zero_at_the_teachers_scores_and_its_gradient_pulls_towards_them():
    targets = torch.randn(8, 10)
    scores = (targets + torch.randn(8, 10)).requires_grad_()

    assert float(distillation(targets, targets, 4.0)) == pytest.approx(0, abs=1e-6)
    before = distillation(scores, targets, 4.0)
    (gradient,) = torch.autograd.grad(before, scores)
    assert bool(distillation(scores - 0.5 * gradient, targets, 4.0) < before)


def test_the_teacher_is_neither_trained_nor_part_of_a_checkpoint():
    network, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    module = Classifier(network, checked(**TINY, lr=0.1), steps=10, teacher=teacher)

    assert {name for name, _ in module.named_parameters()} == {"network.weight", "network.bias"}
    assert not any(p.requires_grad for p in teacher.parameters())


def test_named_parameters_learn_at_a_rate_of_their_own_and_without_decay():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    config = checked(**TINY, lr=0.1, weight_decay=0.01, optimizer="adam")

    optimizer = Classifier(network, config, steps=10, rates={"1.weight": 0.5}).configure_optimizers()["optimizer"]

    groups = {id(p): (g["initial_lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert groups[id(network[0].weight)] == (0.1, 0.01)
    assert groups[id(network[0].bias)] == (0.1, 0.0)
    assert groups[id(network[1].weight)] == (0.5, 0.0)
    assert isinstance(optimizer, torch.optim.AdamW)


def test_a_teacher_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such run directory"):
        train(checked(**TINY, epochs=1, teacher=tmp_path / "nobody", out=tmp_path / "out"))


class _Trainer:
    global_step = 0


def test_every_few_steps_see_another_chip_and_tests_see_ideal_cells():
    images = torch.randn(2, 3, 8, 8)
    network, _ = to_crossbar(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3)), load_chip("rram-22nm"), example=images
    )
    layer, trainer = next(iter(crossbar_layers(network).values())), _Trainer()

    def seeds(seed, every, steps):
        callback, found = Reprogram(network, every=every, seed=seed), []
        for trainer.global_step in range(steps):
            callback.on_train_batch_start(trainer, None, None, 0)
            found.append(int(layer.chip_seed))
            callback.on_validation_start(trainer, None)
            assert int(layer.chip_seed) == IDEAL
        return found

    first = seeds(0, 2, 6)
    assert first[0] == first[1] != first[2] == first[3] != first[4]
    assert IDEAL not in first
    assert seeds(0, 2, 6) == first
    assert seeds(1, 2, 6) != first
    assert set(seeds(0, 0, 3)) == {IDEAL}


def test_the_configuration_of_a_teacher_is_saved_with_the_run(teacher, tmp_path):
    run = train(checked(**TINY, epochs=1, teacher=teacher, distill=0.3, out=tmp_path / "run"))

    config = json.loads((run / "config.json").read_text())
    assert (config["teacher"], config["distill"], config["temperature"]) == (str(teacher), 0.3, 4.0)
