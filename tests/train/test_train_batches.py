import itertools

import pytest
import torch

from bitline.data import DataSet, load
from bitline.train.augment import cutout, flip_and_crop
from bitline.train.loader import TestBatches, TrainBatches
from bitline.train.module import factor


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 64, channels: int = 3, height: int = 8, width: int = 6) -> torch.Tensor:
    return torch.arange(batch * channels * height * width, dtype=torch.int32).view(batch, channels, height, width)


def test_without_flip_and_crop_images_stay_as_they_are():
    assert torch.equal(flip_and_crop(images(), flip=False, pad=0, generator=generator()), images())


def test_every_augmented_image_is_a_window_of_the_padded_image_or_its_mirror():
    whole = images()
    padded = torch.nn.functional.pad(whole.float(), (2, 2, 2, 2), mode="reflect").int()

    result = flip_and_crop(whole, flip=True, pad=2, generator=generator())

    seen = set()
    for index in range(len(whole)):
        windows = {
            (row, column, flip): padded[index, :, row : row + 8, column : column + 6].flip(2 if flip else ())
            for row in range(5)
            for column in range(5)
            for flip in (False, True)
        }
        matches = [key for key, window in windows.items() if torch.equal(window, result[index])]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {flip for _, _, flip in seen} == {False, True}
    assert {row for row, _, _ in seen} == {column for _, column, _ in seen} == set(range(5))


def test_augmented_batches_lie_in_memory_as_channels_last():
    result = flip_and_crop(images(), flip=True, pad=1, generator=generator())

    assert result.is_contiguous(memory_format=torch.channels_last)


def test_cutout_zeroes_one_square_of_each_image_and_nothing_else():
    whole = torch.ones(500, 2, 8, 8)

    result = cutout(whole.clone(), size=4, generator=generator())

    holes = result[:, 0] == 0
    assert torch.equal(result[:, 0], result[:, 1])
    rows, columns = holes.any(2).sum(1), holes.any(1).sum(1)
    assert torch.equal(holes.sum((1, 2)), rows * columns)  # a rectangle
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 4, 2, 4)
    assert holes.any(0).all()


def test_half_of_the_images_are_mirrored():
    whole = images(batch=4000, channels=1, height=1, width=2)

    mirrored = (flip_and_crop(whole, flip=True, pad=0, generator=generator()) != whole).any((1, 2, 3))

    assert 0.47 < mirrored.double().mean() < 0.53


def test_an_epoch_shows_every_image_at_most_once_and_another_epoch_another_order(digits):
    batches = TrainBatches(digits, batch_size=100, seed=0, flip=False, pad=0)
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        epochs.append(torch.cat([x for x, _ in batches]))

    for shown in epochs:
        assert len(shown) == 1400
        counts = shown.flatten(1).unique(dim=0, return_counts=True)[1]
        assert counts.max() <= digits.train_images.flatten(1).unique(dim=0, return_counts=True)[1].max()
    assert not torch.equal(*epochs)


def test_a_limited_epoch_shows_so_many_images_and_the_next_epoch_others(digits):
    batches = TrainBatches(digits, batch_size=100, seed=0, flip=False, pad=0, limit=350)
    whole = TrainBatches(digits, batch_size=100, seed=0, flip=False, pad=0)
    shown = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        shown.append(torch.cat([x for x, _ in batches]))
    first = torch.cat([x for x, _ in itertools.islice(whole, 3)])

    assert len(batches) == 3
    assert torch.equal(shown[0], first)
    assert shown[1].shape == first.shape
    assert not torch.equal(*shown)
    assert len(TrainBatches(digits, batch_size=100, seed=0, flip=False, pad=0, limit=10**6)) == 14


def test_labels_stay_with_their_images(digits):
    lookup = {bytes(image.flatten().tolist()): int(label) for image, label in zip(*digits.split("train"), strict=True)}
    batches = TrainBatches(digits, batch_size=50, seed=1, flip=False, pad=0)
    mean, std = digits.mean[0], digits.std[0]

    x, y = next(iter(batches))

    restored = ((x * std + mean) * 255).round().to(torch.uint8)
    assert [lookup[bytes(image.flatten().tolist())] for image in restored] == y.tolist()


def test_a_resumed_loader_gives_the_batches_that_were_still_to_come(digits):
    whole = TrainBatches(digits, batch_size=200, seed=2, flip=True, pad=1)
    whole.set_epoch(3)
    iterator = iter(whole)
    for _ in range(4):
        next(iterator)
    state = whole.state_dict()
    resumed = TrainBatches(digits, batch_size=200, seed=2, flip=True, pad=1)
    resumed.load_state_dict(state)
    resumed.set_epoch(3)

    for one, other in zip(iterator, resumed, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_test_batches_hold_every_image_once_in_order(digits):
    batches = TestBatches(digits, batch_size=100)

    assert torch.equal(torch.cat([y for _, y in batches]), digits.test_labels)
    assert len(list(batches)) == len(batches) == 4


def test_schedules_begin_and_end_where_they_should():
    assert [factor(step, 10, "linear") for step in (0, 5, 10)] == [1, 0.5, 0]
    assert [round(factor(step, 10, "cosine"), 12) for step in (0, 5, 10)] == [1, 0.5, 0]
    assert [round(factor(step, 10, "onecycle"), 12) for step in (0, 3, 10)] == [0.04, 1, 0]
    assert [factor(step, 8, "steps") for step in range(9)] == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01]
