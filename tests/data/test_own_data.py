"""Data of one's own: folders without a split, tables of any columns, float images, one cache for the same."""

import io
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image

from bitline.data import LAYOUTS, DataSet, load
from bitline.data.division import spread
from bitline.data.identity import earlier, fingerprint_1
from bitline.errors import DataError

COUNTS = {"bee": 10, "ant": 25, "wasp": 3, "fly": 2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bitline" / "decoded"


def png(value: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side), value).save(buffer, "PNG")
    return buffer.getvalue()


def by_class(folder: Path, counts: dict[str, int], *, shuffled: int = 0) -> Path:
    """Images of all different values, written in some order at some time."""
    names = [(label, number) for label in counts for number in range(counts[label])]
    values = {name: value for value, name in enumerate(names)}
    random.Random(shuffled).shuffle(names)
    for label, number in names:
        (folder / label).mkdir(parents=True, exist_ok=True)
        place = folder / label / f"{number}.png"
        place.write_bytes(png(values[label, number]))
        os.utime(place, (random.Random(shuffled + number).random() * 1e9,) * 2)
    return folder


def table(folder: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, *splits: str) -> str:
    folder.mkdir(exist_ok=True)
    kinds = None if features is None else datasets.Features(features)
    for split in splits or ("train", "test"):
        datasets.Dataset.from_dict(columns, features=kinds).to_parquet(folder / f"{split}.parquet")
    return str(folder)


def pictures(*values: int) -> list[dict[str, Any]]:
    return [{"bytes": png(value), "path": None} for value in values]


def values(images: torch.Tensor) -> set[int]:
    return set(images[:, 0, 0, 0].tolist())


def test_class_folders_without_a_split_are_divided_in_proportion_with_an_image_of_each_class_on_both_sides(tmp_path):
    data = load(str(by_class(tmp_path / "insects", COUNTS)), split=0.2)

    assert data.classes == ("ant", "bee", "fly", "wasp")
    assert torch.bincount(data.test_labels).tolist() == [5, 2, 1, 1]
    assert torch.bincount(data.train_labels).tolist() == [20, 8, 1, 2]
    assert not values(data.train_images) & values(data.test_images)
    assert values(data.train_images) | values(data.test_images) == set(range(40))
    pixels = data.train_images.double() / 255
    assert data.mean == pytest.approx((float(pixels.mean()),))
    assert data.std == pytest.approx((float(pixels.std(correction=0)),))


def test_which_images_are_for_testing_depends_neither_on_order_nor_on_time_nor_on_place_nor_on_size(tmp_path):
    one = load(str(by_class(tmp_path / "one", COUNTS)), split=0.3)
    two = load(str(by_class(tmp_path / "two" / "insects", COUNTS, shuffled=7)), split=0.3)
    small = load(str(tmp_path / "one"), split=0.3, image_size=4)

    assert values(one.test_images) == values(two.test_images) == values(small.test_images)
    assert values(one.test_images) != set(range(12))


def test_another_share_reads_the_same_cache(tmp_path, own_cache):
    folder = str(by_class(tmp_path / "insects", COUNTS))

    assert len(load(folder, split=0.2).test_images) == 9
    assert len(load(folder, split=0.5).test_images) == 12 + 5 + 1 + 2
    assert len(list(own_cache.iterdir())) == 1


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, 20.0, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(DataError, match=r"split is .*; allowed: between 0 and 1, for example 0.2"):
        load("digits", split=share)


def test_a_split_is_not_made_where_there_is_one(tmp_path):
    for split in ("train", "Val"):
        by_class(tmp_path / "insects" / split, {"ant": 2, "bee": 3})
    folder = str(tmp_path / "insects")

    assert torch.bincount(load(folder).test_labels).tolist() == [2, 3]
    for name in (folder, "digits"):
        with pytest.raises(DataError, match=r"split is 0.2, but .* has test images of its own: leave it out"):
            load(name, split=0.2)


def test_a_training_folder_alone_is_divided_when_asked_to(tmp_path):
    by_class(tmp_path / "insects" / "train", {"ant": 5, "bee": 5})

    with pytest.raises(DataError, match=r"training images alone; expected train and test, or split=0.2 \(--split 0.2"):
        load(str(tmp_path / "insects"))
    assert load(str(tmp_path / "insects"), split=0.2).test_labels.tolist() == [0, 1]


def test_a_class_called_train_is_a_class(tmp_path):
    folder = by_class(tmp_path / "vehicles", {"train": 5, "bus": 5})

    assert load(str(folder), split=0.2).classes == ("bus", "train")


def test_test_images_of_a_class_without_training_images_are_refused(tmp_path):
    by_class(tmp_path / "insects" / "train", {"ant": 2, "bee": 2})
    by_class(tmp_path / "insects" / "test", {"ant": 2, "wasp": 2})

    with pytest.raises(DataError, match=r"has classes \['wasp'\] that .*train has not, which has \('ant', 'bee'\)"):
        load(str(tmp_path / "insects"))


def test_what_is_passed_over_is_said(tmp_path, caplog):
    for split in ("train", "test", "extra"):
        by_class(tmp_path / "insects" / split, {"ant": 2, "bee": 2})
    (tmp_path / "insects" / "train" / "ant" / "notes.txt").touch()
    load(str(tmp_path / "insects"))

    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said[0].endswith("insects: not read: extra")
    assert said[1].endswith("insects/train: 1 files are no images and not read, for example ant/notes.txt")


def test_every_layout_stands_in_the_error_of_a_folder_of_something_else(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").write_bytes(png(1))
    (tmp_path / "y").mkdir()
    for name in ("x", "y"):
        with pytest.raises(DataError) as caught:
            load(str(tmp_path / name))
        line = str(caught.value)
        assert "\n" not in line
        sources, _, _ = LAYOUTS.partition("Classes are")
        assert all(each.split()[0] in line for each in sources.splitlines())
    assert all(len(line) <= 80 for line in LAYOUTS.splitlines())


@pytest.mark.parametrize(
    ("labels", "kind", "classes", "numbers"),
    [
        (["dog", "ant", "dog"], "string", ("ant", "dog"), [1, 0, 1]),
        ([1.0, 0.0, 2.0], "float64", ("0", "1", "2"), [1, 0, 2]),
        ([2, 0, 1], "int8", ("0", "1", "2"), [2, 0, 1]),
        ([1, 0, 1], datasets.ClassLabel(names=["zebra", "ant"]), ("zebra", "ant"), [1, 0, 1]),
    ],
)
def test_the_only_columns_that_may_be_meant_are_found_whatever_they_are_called(
    tmp_path, labels, kind, classes, numbers
):
    kind = datasets.Value(kind) if isinstance(kind, str) else kind
    features = {"picture": datasets.Image(), "kind of animal": kind}
    data = load(table(tmp_path / "x", {"picture": pictures(1, 2, 3), "kind of animal": labels}, features))

    assert data.classes == classes
    assert data.train_labels.tolist() == data.test_labels.tolist() == numbers
    assert values(data.train_images) == {1, 2, 3}


SEVERAL = {"front": pictures(1, 2), "side": pictures(3, 4), "fine": ["a", "b"], "coarse": ["y", "x"], "n": [0.5, 1.0]}


def test_columns_are_named_where_several_may_be_meant(tmp_path, own_cache):
    name = table(tmp_path / "x", SEVERAL)
    there = "there are: front (images), side (images), fine (string), coarse (string), n (float64)"

    with pytest.raises(DataError) as caught:
        load(name)
    several = "2 columns may be the images; name it with --image-column (image_column in Python)"
    assert str(caught.value) == f"x: train: {several}; {there}"
    with pytest.raises(DataError, match=r"3 columns may be the labels; name it with --label-column \(label_column"):
        load(name, image_column="side")
    with pytest.raises(DataError) as caught:
        load(name, image_column="side", label_column="fin")
    there = "there are: fine (string), coarse (string), front (images), n (float64)"
    assert str(caught.value).startswith("x: train: label_column is 'fin'; did you mean 'fine'?; there are: ")
    with pytest.raises(DataError, match="column 'n' holds float64; allowed: encoded images"):
        load(name, image_column="n", label_column="fine")

    data = load(name, image_column="side", label_column="coarse")
    assert (values(data.train_images), data.classes, data.train_labels.tolist()) == ({3, 4}, ("x", "y"), [1, 0])
    data = load(name, image_column="front", label_column="fine")
    assert (values(data.train_images), data.classes) == ({1, 2}, ("a", "b"))


def test_names_of_columns_are_refused_where_there_are_none(tmp_path):
    folder = str(by_class(tmp_path / "insects", COUNTS))
    with pytest.raises(DataError, match=r"image_column is 'x', but .*insects, a folder of images, has no columns"):
        load(folder, split=0.2, image_column="x")
    with pytest.raises(DataError, match="label_column is 'y', but digits has no columns"):
        load("digits", label_column="y")


def test_a_single_parquet_file_is_divided_the_same_way_every_time(tmp_path):
    columns = {"image": pictures(*range(20)), "label": [n % 2 for n in range(20)]}
    file = Path(table(tmp_path / "x", columns, None, "all")) / "all.parquet"

    with pytest.raises(DataError, match=r"or split=0\.2"):
        load(str(file))
    one, two = load(str(file), split=0.2), load(str(file), split=0.2)
    assert torch.bincount(one.test_labels).tolist() == [2, 2]
    assert torch.equal(one.test_images, two.test_images)
    assert torch.equal(one.test_images, load(str(file.parent), split=0.2).test_images)


def test_labels_that_are_texts_in_one_split_and_numbers_in_the_other_are_refused(tmp_path):
    table(tmp_path / "x", {"image": pictures(1, 2), "label": ["a", "b"]}, None, "train")
    table(tmp_path / "x", {"image": pictures(1, 2), "label": [0, 1]}, None, "test")
    with pytest.raises(DataError, match=r"x: test: labels \['0', '1'\] are of no training image"):
        load(str(tmp_path / "x"))


def test_test_labels_of_no_training_image_are_refused(tmp_path):
    table(tmp_path / "x", {"image": pictures(1, 2), "label": ["a", "b"]}, None, "train")
    table(tmp_path / "x", {"image": pictures(1, 2), "label": ["a", "c"]}, None, "test")
    with pytest.raises(DataError, match=r"x: test: labels \['c'\] are of no training image"):
        load(str(tmp_path / "x"))


@pytest.mark.parametrize("first", [None, 8])
def test_the_size_that_images_have_needs_no_second_cache(tmp_path, own_cache, first):
    name = table(tmp_path / "x", {"image": pictures(1, 2), "label": [0, 1]})
    load(name, image_size=first)
    (entry,) = own_cache.iterdir()
    written = entry.stat().st_mtime_ns

    for size in (None, 8):
        assert load(name, image_size=size).image_size == 8
    assert [each.name for each in own_cache.iterdir()] == [entry.name]
    assert entry.stat().st_mtime_ns == written
    assert load(name, image_size=4).image_size == 4
    assert len(list(own_cache.iterdir())) == 2


def test_the_same_files_by_another_path_name_or_copy_need_no_second_cache(tmp_path, own_cache, monkeypatch):
    name = table(tmp_path / "x", {"image": pictures(1, 2), "label": [0, 1]})
    (tmp_path / "link").symlink_to(name)
    shutil.copytree(name, tmp_path / "copy" / "cifar10")
    monkeypatch.setenv("BITLINE_DATA", str(tmp_path / "copy"))
    monkeypatch.chdir(tmp_path)

    titles = [load(each).title for each in (name, "x/../x", "link", "copy/cifar10", "cifar10")]
    assert titles == ["x", "x", "x", "cifar10", "CIFAR-10"]
    assert len(list(own_cache.iterdir())) == 1


def test_entries_of_an_earlier_format_make_room_for_the_new_one(tmp_path, own_cache):
    folder = Path(table(tmp_path / "x", {"image": pictures(1, 2), "label": [0, 1]}))
    before = fingerprint_1([folder / "train.parquet", folder / "test.parquet"])
    own_cache.mkdir(parents=True)
    for size in (None, 8, 4):
        (own_cache / f"{earlier(before, 'x', size)}.safetensors").touch()
    (own_cache / "other-0123456789abcdef.safetensors").touch()

    load(str(folder))
    left = sorted(each.name.partition("-")[0] for each in own_cache.iterdir())
    assert left == ["images", "other", "x"]  # of another size, which nobody asked for yet
    load(str(folder), image_size=4)
    assert sorted(each.name.partition("-")[0] for each in own_cache.iterdir()) == ["images", "images", "other"]


def in_memory(images: torch.Tensor, **changes: Any) -> DataSet:
    labels = torch.arange(len(images)) % 2
    data = DataSet("mine", "mine", images, labels, images[:3], labels[:3], ("a", "b"), (0.25, 0.5), (0.5, 2.0))
    return replace(data, **changes)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.uint8])
def test_images_are_normalized_to_the_right_values_at_every_pass_and_never_written(kind):
    whole = torch.randint(0, 256, (8, 2, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = whole if kind == torch.uint8 else whole.to(kind) / 255
    before = images.clone()
    data = in_memory(images)
    # by plain numbers: pixel over 255, less the mean, over the deviation
    wanted = (whole.double() / 255 - torch.tensor([0.25, 0.5]).view(1, 2, 1, 1)) / torch.tensor([0.5, 2.0]).view(
        1, 2, 1, 1
    )

    for _ in range(2):
        found = torch.cat([x for x, _ in data.batches("train", batch_size=3)])
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=0)
        assert torch.equal(images, before)


IMAGES = torch.rand(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": IMAGES * 3 - 1}, r"train_images are floats from -\d.* allowed: 0 to 1.*bitline.evaluate"),
        ({"train_images": IMAGES * float("nan")}, "train_images are floats from nan to nan"),
        ({"train_images": (IMAGES * 255).int()}, "train_images are torch.int32; allowed: torch.uint8, or floats"),
        ({"train_images": IMAGES[:, :, 0]}, r"train_images have shape \(4, 2, 4\); expected \(images, channels"),
        ({"train_images": IMAGES[:, :, :3]}, r"have shape \(4, 2, 3, 4\)"),
        ({"test_images": IMAGES[:0]}, r"test_images have shape \(0, 2, 4, 4\)"),
        ({"test_images": (IMAGES[:3] * 255).to(torch.uint8)}, "float32, test images .* torch.uint8; expected the same"),
        ({"train_labels": torch.zeros(4)}, r"train_labels are torch.float32 of shape \(4,\); expected torch.int64"),
        ({"train_labels": torch.zeros(3).long()}, r"of shape \(3,\); expected torch.int64, \(4,\)"),
        ({"train_labels": torch.tensor([0, 1, 2, 0])}, "train_labels are from 0 to 2; allowed: 0 to 1"),
        ({"test_labels": torch.tensor([0, -1, 0])}, "test_labels are from -1 to 0; allowed: 0 to 1"),
        ({"mean": (0.5,)}, r"mean is \(0.5,\); expected 2 numbers"),
        ({"std": (0.5, 0.0)}, r"std is \(0.5, 0.0\); expected 2 numbers above 0"),
    ],
)
def test_a_data_set_checks_what_it_is_given(changes, message):
    with pytest.raises(DataError, match=message):
        in_memory(IMAGES, **changes)


def test_a_data_set_prints_in_a_few_lines():
    assert str(load("digits")) == (
        "digits 8x8: 1,442 training and 355 test images, 1 x 8 x 8, uint8\n"
        "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n"
        "normalized by mean 0.305, std 0.376"
    )
    many = in_memory(IMAGES, classes=tuple(f"class number {n}" for n in range(500)))
    assert len(str(many).splitlines()) == 3
    assert all(len(line) <= 80 for line in str(many).splitlines())


@pytest.mark.parametrize("name", ["mine", "./mine", "../here/mine", "."])
def test_a_folder_may_be_named_from_where_one_stands(tmp_path, monkeypatch, name):
    folder = by_class(tmp_path / "here" / "mine", COUNTS)
    monkeypatch.chdir(folder if name == "." else folder.parent)

    data = load(name, split=0.2)

    assert len(data.train_images) + len(data.test_images) == sum(COUNTS.values())
    assert set(data.classes) == set(COUNTS)


@pytest.mark.parametrize("kind", ["folder", "folder of splits", "table"])
def test_the_first_images_are_of_all_classes(tmp_path, kind):
    counts = {"ant": 40, "bee": 20, "fly": 60}
    if kind == "table":
        labels = [label for label, count in counts.items() for _ in range(count)]
        name = table(
            tmp_path / "t",
            {"image": pictures(*range(120)), "label": labels},
            {"image": datasets.Image(), "label": datasets.Value("string")},
        )
        data = load(name)
        assert [int(x) for x in data.train_images[:, 0, 0, 0]][:4] == [60, 0, 40, 61]
    elif kind == "folder":
        data = load(str(by_class(tmp_path / "x", counts)), split=0.5)
    else:
        for split in ("train", "test"):
            by_class(tmp_path / "y" / split, counts)
        data = load(str(tmp_path / "y"))

    for labels in (data.train_labels, data.test_labels):
        first = labels[: len(labels) // 4].bincount(minlength=3).tolist()
        whole = labels.bincount(minlength=3).tolist()
        assert all(abs(4 * a - b) <= 8 for a, b in zip(first, whole, strict=True))


def test_images_that_come_in_any_order_stay_in_it():
    assert spread([0, 1, 0, 1, 1]) == [0, 1, 2, 3, 4]
    assert spread(["b", "b", "a", "a", "a", "a"]) == [2, 0, 3, 4, 1, 5]
    assert spread([3, 3, 3]) == [0, 1, 2]
    assert spread([]) == []
