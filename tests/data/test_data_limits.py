"""Data that would take memory, time or other files are refused by one line, before any pixel is decoded."""

import io
import os
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from bitline import files
from bitline.data import images, load
from bitline.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bitline"


def png(side: int = 8, height: int | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, height or side), 7).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


PNG = png()


def written(folder: Path, records: list[dict[str, object]], labels: list[int | None], kind: str = "int64") -> str:
    """Train and test parquet of the same rows."""
    folder.mkdir()
    features = datasets.Features(
        img={"bytes": datasets.Value("binary"), "path": datasets.Value("string")}, label=datasets.Value(kind)
    )
    rows = datasets.Dataset.from_dict({"img": records, "label": labels}, features=features)
    for split in ("train", "test"):
        rows.to_parquet(folder / f"{split}.parquet")
    return str(folder)


def refusal(name: str, **options: int) -> str:
    started = time.monotonic()
    with pytest.raises(DataError) as error:
        load(name, **options)
    assert time.monotonic() - started < 5
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([0, 10**12], "int64", "x: train: labels from 0 to 1000000000000; allowed: 0 to 1"),
        ([0, 10**6], "int64", "x: train: labels from 0 to 1000000; allowed: 0 to 1"),
        ([0, 2**63 - 1], "int64", "x: train: labels from 0 to 9223372036854775807; allowed: 0 to 1"),
        ([0, 2**32 - 1], "uint32", "x: train: labels from 0 to 4294967295; allowed: 0 to 1"),
        ([0, -1], "int64", "x: train: labels from -1 to 0; allowed: 0 to 1"),
        ([0, None], "int64", "x: train: 1 of 2 labels are null"),
        ([None, None], "int64", "x: train: 2 of 2 labels are null"),
        ([0.0, 1.5], "float32", "x: train: a label is 1.5; allowed: whole numbers or texts"),
        ([0.0, float("nan")], "float32", "x: train: a label is nan; allowed: whole numbers or texts"),
        (["0", None], "string", "x: train: 1 of 2 labels are null"),
        ([b"0", b"1"], "binary", "x: train: column 'label' holds binary; allowed: whole numbers, texts or ClassLabel"),
    ],
)
def test_labels_that_number_no_classes_are_refused(tmp_path, labels, kind, message):
    name = written(tmp_path / "x", [{"bytes": PNG, "path": None}] * len(labels), labels, kind)
    assert refusal(name) == message


def test_a_row_never_opens_a_file(tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    for number, path in enumerate((str(tmp_path / "secret.png"), "/dev/zero", "/etc/passwd", "../secret.png")):
        name = written(tmp_path / f"x{number}", [{"bytes": None, "path": path}] * 2, [0, 1])
        line = refusal(name)
        assert line.startswith(f"x{number}: train image 0 is a file, '{path[:20]}")
        assert line.endswith("; only images within the data set are read")


def folder_of_images(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            place = tmp_path / "pets" / split / label
            place.mkdir(parents=True)
            (place / "0.png").write_bytes(PNG)
    return tmp_path / "pets"


def linked(folder: Path, images: Path, **labels: str) -> Path:
    """A folder whose images are links to those of another, by the label that each gets."""
    for split in ("train", "test"):
        for label, image in labels.items():
            place = folder / split / label
            place.mkdir(parents=True)
            (place / "0.png").symlink_to(images / image)
    return folder


def test_a_folder_of_linked_images_is_read_as_its_own_links_have_it(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for value in (10, 200):
        Image.new("L", (8, 8), value).save(images / f"{value}.png")
    for number, names in enumerate((["10.png", "200.png"], ["200.png", "10.png"])):
        folder = linked(tmp_path / str(number) / "pets", images, cat=names[0], dog=names[1])
        found = load(str(folder))
        pixels = [int(name.removesuffix(".png")) for name in names]
        assert found.classes == ("cat", "dog")
        assert found.train_labels.tolist() == [0, 1]
        assert found.train_images.flatten(1).float().mean(1).tolist() == pixels


@pytest.mark.parametrize("depth", ["train", "train/dog"])
def test_a_link_to_a_folder_of_images_is_followed_wherever_it_leads(tmp_path, depth):
    folder = folder_of_images(tmp_path)
    plain = load(str(folder))
    (folder / depth).rename(tmp_path / "elsewhere")
    (folder / depth).symlink_to(tmp_path / "elsewhere")
    linked = load(str(folder))
    assert linked.classes == ("cat", "dog")
    assert linked.train_labels.tolist() == plain.train_labels.tolist() == [0, 1]
    assert torch.equal(linked.train_images, plain.train_images)


@pytest.mark.parametrize("target", ["train/dog", "train", "."])
def test_a_link_that_leads_back_to_where_it_lies_is_refused(tmp_path, target):
    folder = folder_of_images(tmp_path)
    (folder / "train" / "dog" / "again").symlink_to(folder / target)
    line = refusal(str(folder))
    real = (folder / target).resolve()
    assert line == f"{folder}/train/dog/again is a link to {real}, which it lies in: images there have no end"


@pytest.mark.parametrize("path", ["/etc/passwd", "FOLDER/../secret.png", "0.png", "FOLDER/zero", "FOLDER"])
def test_what_is_no_file_below_the_folder_of_images_is_not_read(tmp_path, path):
    folder = folder_of_images(tmp_path)
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "zero").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="only images within the data set are read"):
        images.open_image({"bytes": None, "path": path.replace("FOLDER", str(folder))}, "image", [folder])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"bytes": None, "path": None}, "x: train image 0 has neither bytes nor a path"),
        ({"bytes": b"", "path": None}, "x: train image 0 is no image of a known format (BMP, GIF, JPEG"),
        ({"bytes": b"GIF89a", "path": "a.gif"}, "x: train image 0"),
        ({"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "path": "a.eps"}, "x: train image 0 is no"),
        ({"bytes": encoded("JPEG")[:-60], "path": None}, "cannot decode x: train image 0"),
        ({"bytes": PNG[:20] + b"\xff" * 20, "path": None}, "x: train image 0"),
        ({"bytes": png(12_000), "path": None}, "x: train image 0 has 12000 x 12000 px; allowed: 33554432 in all"),
        ({"bytes": png(50_000, 2000), "path": None}, "x: train image 0 has 50000 x 2000 px"),
        ({"bytes": b"\x89PNG\r\n\x1a\n" + bytes(2**26), "path": None}, "x: train image 0 has 67108872 bytes"),
    ],
    ids=["nothing", "empty", "gif", "eps", "cut", "noise", "bomb", "long", "large"],
)
def test_an_image_that_cannot_be_one_is_named(tmp_path, record, message):
    line = refusal(written(tmp_path / "x", [record, {"bytes": PNG, "path": None}], [0, 1]))
    assert message in line
    assert "BytesIO" not in line


def test_a_bomb_of_more_pixels_than_pillow_takes_is_refused_alike(tmp_path):
    header = bytearray(PNG)
    header[16:24] = (50_000).to_bytes(4, "big") * 2
    import zlib

    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    line = refusal(written(tmp_path / "x", [{"bytes": bytes(header), "path": None}] * 2, [0, 1]))
    assert line.startswith("cannot read x: train image 0: Image size (2500000000 pixels) exceeds limit")


@pytest.mark.parametrize("size", [100_000, 4097, 0, -8])
def test_a_size_that_images_cannot_be_resized_to_is_refused_at_once(size):
    assert refusal("cifar10", image_size=size) == f"image_size is {size}; allowed: 1 to 4096 px"


def test_images_that_take_more_memory_than_there_is_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    name = written(tmp_path / "x", [{"bytes": PNG, "path": None}] * 4, [0, 1, 0, 1])
    monkeypatch.setattr(images, "MOST_MEMORY", 1e6 / (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    assert refusal(name, image_size=1024).startswith(
        "x: 8 images of 1 x 1024 x 1024 take 0.00839 GB decoded; allowed: 0.001 GB"
    )


def test_random_bytes_of_image_files_are_refused_or_read_and_nothing_else(tmp_path):
    random = np.random.default_rng(0)
    whole = [PNG, encoded("JPEG"), encoded("GIF"), encoded("BMP"), encoded("TIFF"), encoded("WEBP")]
    outcomes = set()
    for _ in range(300):
        content = bytearray(whole[random.integers(len(whole))])
        for place in random.integers(0, len(content), random.integers(1, 20)):
            content[place] = random.integers(256)
        try:
            image = images.open_image({"bytes": bytes(content), "path": None}, "image", ())
            images.in_mode(image, "RGB", 8, "image")
            outcomes.add("read")
        except DataError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("what", ["pixel", "label", "class", "statistics"])
def test_a_cache_whose_content_changed_is_made_again(tmp_path, own_cache, what):
    name = written(tmp_path / "x", [{"bytes": PNG, "path": None}] * 4, [0, 1, 0, 1])
    load(name)
    (entry,) = (own_cache / "decoded").iterdir()
    size = entry.stat().st_size
    tensors, metadata = files.read_tensors(entry)
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    match what:
        case "pixel":
            tensors["test_images"][0, 0, 0, 0] += 1
        case "label":
            tensors["train_labels"][0] = 10**6
        case "class":
            metadata["meta"] = metadata["meta"].replace('"classes": ["0", "1"]', '"classes": ["0", "2"]')
        case _:
            metadata["meta"] = metadata["meta"].replace('"std": [1.0]', '"std": [9.0]')
    files.write_tensors(entry, tensors, metadata)
    assert entry.stat().st_size == size
    again = load(name)
    assert torch.equal(again.test_images, torch.full((4, 1, 8, 8), 7, dtype=torch.uint8))
    assert again.train_labels.tolist() == [0, 1, 0, 1]
    assert (again.classes, again.std) == (("0", "1"), (1.0,))
    assert again.mean == pytest.approx((7 / 255,))


def test_the_cache_and_its_like_are_readable_by_all(tmp_path, own_cache):
    load(written(tmp_path / "x", [{"bytes": PNG, "path": None}] * 2, [0, 1]))
    (entry,) = (own_cache / "decoded").iterdir()
    assert entry.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("labels", "remark"),
    [
        ([1, 1, 1], "x: all training images are of class 1"),
        ([0, 2, 2], "x: 1 of 3 classes have no training image"),
        ([0, 1, 1], ""),
    ],
)
def test_classes_without_a_training_image_are_remarked_on(tmp_path, caplog, labels, remark):
    name = written(tmp_path / "x", [{"bytes": PNG, "path": None}] * 3, labels)
    load(name)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert (remark in said[0].replace(name, "x")) if remark else said == []
