import io
import json
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from bitline import files
from bitline.data import cache, load
from bitline.errors import DataError

CLASSES = ["cat", "dog"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BITLINE_DATA", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache" / "bitline"


def pixels(count: int, seed: int, size: int = 8, grey: bool = False) -> np.ndarray:
    shape = (count, size, size) if grey else (count, size, size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def write_parquet(folder: Path, train: list[bytes], test: list[bytes], labels: object = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(
        img=datasets.Image(), label=datasets.ClassLabel(names=CLASSES) if labels is None else datasets.Value("int64")
    )
    for split, images in (("train", train), ("test", test)):
        columns = {"img": [{"bytes": b, "path": None} for b in images], "label": [i % 2 for i in range(len(images))]}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_parquet(tmp_path / "set", [encoded(i) for i in pixels(6, 0)], [encoded(i) for i in pixels(4, 1)])


def test_a_parquet_folder_gives_the_pixels_labels_and_class_names(folder):
    data = load(str(folder))

    assert torch.equal(data.train_images, torch.from_numpy(pixels(6, 0)).permute(0, 3, 1, 2))
    assert torch.equal(data.test_images, torch.from_numpy(pixels(4, 1)).permute(0, 3, 1, 2))
    assert data.train_images.dtype == torch.uint8
    assert data.test_labels.tolist() == [0, 1, 0, 1]
    assert data.classes == ("cat", "dog")
    assert (data.channels, data.image_size, data.num_classes, data.title) == (3, 8, 2, "set")


def test_normalized_training_images_have_zero_mean_and_unit_deviation(folder):
    data = load(str(folder))

    images = data.normalize(data.train_images).double()

    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))


def test_batches_cover_the_split_in_order_and_end_with_a_smaller_one(folder):
    data = load(str(folder))

    batches = list(data.batches("train", batch_size=4))

    assert [len(labels) for _, labels in batches] == [4, 2]
    assert torch.equal(torch.cat([images for images, _ in batches]), data.normalize(data.train_images))
    assert [len(labels) for _, labels in data.batches("train", batch_size=4, limit=5)] == [4, 1]
    with pytest.raises(DataError, match="limit is 7; allowed: 1 to 6"):
        data.batches("train", limit=7)


def test_images_are_decoded_once(folder, monkeypatch):
    first = load(str(folder))
    monkeypatch.setattr("bitline.data.sources.decode", lambda *_, **__: pytest.fail("decoded again"))

    second = load(str(folder))

    assert torch.equal(first.train_images, second.train_images)
    assert (first.mean, first.std, first.classes) == (second.mean, second.std, second.classes)


def test_a_changed_source_is_decoded_again(folder):
    load(str(folder))
    write_parquet(folder, [encoded(i) for i in pixels(6, 5)], [encoded(i) for i in pixels(4, 1)])
    os.utime(folder / "train.parquet", ns=(1, 1))

    assert torch.equal(load(str(folder)).train_images, torch.from_numpy(pixels(6, 5)).permute(0, 3, 1, 2))


@pytest.mark.parametrize("harm", ["truncate", "no meta", "no array", "no header"])
def test_a_damaged_cache_is_rebuilt(folder, own_cache, harm):
    good = load(str(folder)).train_images.clone()  # a clone: what is mapped changes with its file
    (entry,) = (own_cache / "decoded").iterdir()
    tensors, metadata = files.read_tensors(entry)
    match harm:
        case "truncate":
            os.truncate(entry, entry.stat().st_size - 1)
        case "no meta":
            files.write_tensors(entry, tensors, {})
        case "no array":
            del tensors["test_labels"]
            files.write_tensors(entry, tensors, metadata)
        case _:
            os.truncate(entry, 20)

    again = load(str(folder))

    assert torch.equal(again.train_images, good)
    assert again.test_labels.tolist() == [0, 1, 0, 1]
    assert [p.name for p in (own_cache / "decoded").iterdir()] == [entry.name]


def test_a_run_that_dies_while_it_decodes_leaves_no_entry(folder, own_cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            load(str(folder))

    assert list((own_cache / "decoded").glob("*")) == []
    assert len(load(str(folder)).train_images) == 6


def test_writing_to_the_tensors_never_reaches_the_cache(folder):
    load(str(folder)).train_images.zero_()

    assert load(str(folder)).train_images.any()


def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_set(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    with pytest.raises(DataError, match=r"cannot write decoded images to .*; set XDG_CACHE_HOME"):
        load(str(folder))


def test_jpeg_quality_is_part_of_the_title(tmp_path):
    images = [encoded(i, "JPEG", quality=75) for i in pixels(4, 0)]

    assert load(str(write_parquet(tmp_path / "lossy", images, images))).title == "lossy (JPEG q75)"


@pytest.mark.parametrize("quality", [10, 50, 90, 100])
def test_the_jpeg_quality_is_read_from_the_file(tmp_path, quality):
    images = [encoded(i, "JPEG", quality=quality) for i in pixels(2, 0)]

    assert load(str(write_parquet(tmp_path / "x", images, images))).title == f"x (JPEG q{quality})"


def test_grey_images_have_one_channel_and_a_mixture_has_three(tmp_path):
    grey = [encoded(i) for i in pixels(4, 0, grey=True)]
    colour = [encoded(i) for i in pixels(4, 0)]

    one = load(str(write_parquet(tmp_path / "grey", grey, grey)))
    three = load(str(write_parquet(tmp_path / "mixed", grey, colour)))

    assert torch.equal(one.train_images[:, 0], torch.from_numpy(pixels(4, 0, grey=True)))
    assert three.train_images.shape == (4, 3, 8, 8)


def test_images_of_several_sizes_are_refused_unless_resized(tmp_path):
    images = [encoded(i) for i in pixels(3, 0, size=8)] + [encoded(i) for i in pixels(1, 0, size=12)]
    folder = write_parquet(tmp_path / "sizes", images, images)

    with pytest.raises(DataError, match=r"8x8 \(6\), 12x12 \(2\); set image_size to resize"):
        load(str(folder))
    assert load(str(folder), image_size=10).train_images.shape == (4, 3, 10, 10)


def test_labels_without_names_are_numbered(tmp_path):
    images = [encoded(i) for i in pixels(4, 0)]

    assert load(str(write_parquet(tmp_path / "plain", images, images[:1], labels="int"))).classes == ("0", "1")


def test_16_bit_images_are_refused(tmp_path):
    deep = encoded(np.zeros((8, 8), np.uint16))

    with pytest.raises(DataError, match=r"pixel modes \['I;16'\]; allowed: 8-bit"):
        load(str(write_parquet(tmp_path / "deep", [deep, deep], [deep, deep])))


def test_a_broken_image_is_named(tmp_path):
    whole = [encoded(i, "JPEG") for i in pixels(2, 0, size=32)]
    cut = [whole[0], whole[1][:-200]]

    with pytest.raises(DataError, match="cannot decode cut: train image 1"):
        load(str(write_parquet(tmp_path / "cut", cut, whole)))


def test_a_damaged_parquet_file_is_an_error(folder):
    os.truncate(folder / "test.parquet", 100)

    with pytest.raises(DataError, match=r"cannot read .*set"):
        load(str(folder))


def test_a_folder_of_images_is_read_by_split_and_class(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for label in CLASSES:
            place = tmp_path / "pets" / split / label
            place.mkdir(parents=True)
            for index, image in enumerate(pixels(count, len(label + split))):
                (place / f"{index}.png").write_bytes(encoded(image))

    data = load(str(tmp_path / "pets"))

    assert data.classes == ("cat", "dog")
    assert data.train_images.shape == (6, 3, 8, 8)
    assert sorted(data.test_labels.tolist()) == [0, 0, 1, 1]


def test_a_train_file_beside_its_test_file_is_enough(folder):
    assert len(load(str(folder / "train.parquet")).test_images) == 4
    with pytest.raises(DataError, match="expected a train"):
        load(str(folder / "test.parquet"))


@pytest.mark.parametrize("below", ["", "cifar10"])
def test_cifar10_is_found_in_the_data_directory_and_its_subfolder(tmp_path, monkeypatch, below):
    images = [encoded(i, "JPEG", quality=75) for i in pixels(4, 0, size=32)]
    write_parquet(tmp_path / "here" / below, images, images)

    monkeypatch.setenv("BITLINE_DATA", str(tmp_path / "here"))

    assert load("cifar10").title == "CIFAR-10 (JPEG q75)"
    assert load("cifar10", data_dir=tmp_path / "here").name == "cifar10"


def test_cifar10_nowhere_is_an_error_that_names_every_place(tmp_path, own_cache):
    with pytest.raises(DataError) as caught:
        load("cifar10")

    for place in (own_cache, own_cache / "cifar10", "uoft-cs/cifar10", "BITLINE_DATA", "--data-dir"):
        assert str(place) in str(caught.value)


@pytest.mark.parametrize("name", ["./absent", "/absent/folder", "absent.parquet"])
def test_an_absent_path_is_not_looked_for_on_the_hub(name):
    with pytest.raises(DataError, match="no such file or folder"):
        load(name)


def test_an_unknown_hub_name_is_an_error_that_lists_what_is_allowed():
    with pytest.raises(DataError, match=r"no data set 'nobody/nothing' from the Hugging Face hub.*cifar10, digits"):
        load("nobody/nothing")


def test_digits_are_split_alike_every_time_with_all_classes_in_both_parts():
    one, two = load("digits"), load("digits")

    assert torch.equal(one.test_images, two.test_images)
    assert len(one.train_images) + len(one.test_images) == 1797
    shares = torch.bincount(one.test_labels) / (torch.bincount(one.test_labels) + torch.bincount(one.train_labels))
    assert ((shares - 0.2).abs() < 0.01).all()
    assert one.train_images.shape[1:] == (1, 8, 8)
    assert one.train_images.max() == 255


def test_the_cache_folder_follows_xdg(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.cache_dir() == Path("/somewhere/bitline")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_dir() == Path.home() / ".cache" / "bitline"
