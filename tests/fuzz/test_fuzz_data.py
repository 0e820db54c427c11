"""Data files: parquet and folders of images with labels, pixels, columns and bytes that are none.

To add a case: a line in `ROWS` (what both parquet files hold) or `DAMAGE` (what is done to a good one).
"""

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz_cases import Accepted, Outcome, Refused, bitline, holds
from PIL import Image

TRAIN = ("train", "lenet5", "--width", "0.1", "--epochs", "1", "--batch-size", "4", "--threads", "1", "--out", "out")
COUNT = 10


def encoded(kind: str = "PNG", side: int = 8, mode: str = "L", **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def blank(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


GOOD = encoded()
TEXT_BOMB = GOOD[:33] + chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(10**8))) + GOOD[33:]
CLAIMS = GOOD[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0)) + GOOD[33:]


def rows(images: Any = None, labels: Any = None, **columns: Any) -> dict[str, Any]:
    """Columns of a table; one image for all of its rows, unless there is a list of them."""
    count = COUNT if labels is None else len(labels)
    images = images if isinstance(images, list) else [GOOD if images is None else images] * count
    each = [image if isinstance(image, dict | None) else {"bytes": image, "path": None} for image in images]
    return {"image": each, "label": [i % 2 for i in range(count)] if labels is None else labels, **columns}


TWO = [0, 1] * (COUNT // 2)
ROWS: dict[str, tuple[dict[str, Any], Outcome]] = {
    "good": (rows(), Accepted()),
    "other columns": (rows(extra=list(range(COUNT))), Accepted()),
    "jpeg": (rows(encoded("JPEG")), Accepted()),
    "gif": (rows(encoded("GIF")), Accepted()),
    "bmp": (rows(encoded("BMP")), Accepted()),
    "webp": (rows(encoded("WEBP")), Accepted()),
    "transparent": (rows(encoded(mode="RGBA")), Accepted()),
    "palette": (rows(encoded(mode="P")), Accepted()),
    "16 bits": (rows(encoded(mode="I;16")), Refused("pixel modes")),
    "float": (rows(encoded("TIFF", mode="F")), Refused("pixel modes")),
    "no rows": (rows(labels=[]), Refused("cannot read")),
    "too few rows": (rows(labels=[0, 1]), Refused("batch_size is 4; allowed: 1 to 2")),
    "label of a million": (rows(labels=[*TWO, 10**6]), Refused("labels from 0 to 1000000; allowed: 0 to 10")),
    "label of a trillion": (rows(labels=[*TWO, 10**12]), Refused("labels from 0 to 1000000000000")),
    "highest label": (rows(labels=[*TWO, 2**63 - 1]), Refused("labels from 0 to 9223372036854775807")),
    "label below zero": (rows(labels=[*TWO, -1]), Refused("labels from -1 to 1")),
    "lowest label": (rows(labels=[*TWO, -(2**63)]), Refused("labels from -9223372036854775808 to 1")),
    "null label": (rows(labels=[*TWO, None]), Refused("1 of 11 labels are null")),
    "null labels": (rows(labels=[None] * COUNT), Refused("column 'label' holds null")),
    "text labels": (rows(labels=["cat", "dog"] * 5), Accepted()),
    "whole real labels": (rows(labels=[0.0, 1.0] * 5), Accepted()),
    "real labels": (rows(labels=[0.5, 1.5] * 5), Refused("a label is 0.5; allowed: whole numbers or texts")),
    "true labels": (rows(labels=[True, False] * 5), Refused("column 'label' holds bool")),
    "lists of labels": (rows(labels=[[0], [1]] * 5), Refused("no column of labels; name it with --label-column")),
    "no labels": ({"image": rows()["image"]}, Refused("no column of labels; name it with --label-column")),
    "no images": ({"label": TWO}, Refused("no column of images; name it with --image-column")),
    "two images": (rows(second=rows()["image"]), Refused("2 columns may be the images; name it with --image-column")),
    "nothing in an image": (rows({"bytes": None, "path": None}), Refused("has neither bytes nor a path")),
    "null images": (rows([None] * COUNT), Refused("no column of images")),
    "endless file": (rows({"bytes": None, "path": "/dev/zero"}), Refused("only images within the data set are read")),
    "file elsewhere": (
        rows({"bytes": None, "path": "/etc/passwd"}),
        Refused("only images within the data set are read"),
    ),
    "file above": (rows({"bytes": None, "path": "../x.png"}), Refused("only images within the data set are read")),
    "address": (rows({"bytes": None, "path": "http://localhost/x.png"}), Refused("only images within the data set")),
    "archive": (rows({"bytes": None, "path": "zip://a::b.zip"}), Refused("only images within the data set are read")),
    "long path": (rows({"bytes": None, "path": "/" + "x" * 9000}), Refused("train image 0")),
    "path of zeros": (rows({"bytes": None, "path": "/a\0b"}), Refused("train image 0")),
    "empty image": (rows(b""), Refused("train image 0 is no image of a known format")),
    "text": (rows(b"hello"), Refused("train image 0 is no image of a known format")),
    "postscript": (rows(b"%!PS-Adobe-3.0 EPSF-3.0\n"), Refused("train image 0 is no image of a known format")),
    "svg": (rows(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), Refused("train image 0 is no image of a known format")),
    "half an image": (rows(encoded("JPEG", side=64)[:-500]), Refused("cannot decode")),
    "bomb": (rows(blank(12_000, 12_000)), Refused("has 12000 x 12000 px; allowed: 33554432")),
    "long bomb": (rows(blank(2**17, 2**10)), Refused("has 131072 x 1024 px; allowed: 33554432")),
    "claimed pixels": (rows(CLAIMS), Refused("train image 0")),
    "bomb of text": (rows(TEXT_BOMB), Refused("Decompressed data too large")),
    "two sizes": (rows([encoded(), encoded(side=9)] * 5), Refused("must be square and of one size")),
    "not square": (rows(blank(8, 9)), Refused("must be square and of one size")),
    "one pixel": (rows(encoded(side=1)), Refused("LeNet-5 pools twice by two")),
    "too large to be trained on": (rows(blank(2048, 2048)), Refused("image_size is 2048; allowed: 1 to 1024")),
}


def written(folder: Path, columns: dict[str, Any]) -> Path:
    folder.mkdir()
    for split in ("train", "test"):
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_rows(tmp_path: Path, name: str):
    columns, expected = ROWS[name]
    holds(expected, *TRAIN, "--data", written(tmp_path / "set", columns))
    assert (tmp_path / "out").exists() == isinstance(expected, Accepted)


def flipped(content: bytes, seed: int) -> bytes:
    draw, changed = random.Random(seed), bytearray(content)
    for _ in range(8):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "no end": lambda whole: whole[:-4],
    "end alone": lambda whole: whole[-50:],
    "zeros": lambda whole: bytes(len(whole)),
    "random": lambda _: random.Random(0).randbytes(5000),
    "text": lambda _: b"a,b\n1,2\n",
    "long footer": lambda whole: whole[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1",
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_parquet_file(tmp_path: Path, split: str, name: str):
    folder = written(tmp_path / "set", rows())
    file = folder / f"{split}.parquet"
    file.write_bytes(DAMAGE[name](file.read_bytes()))
    holds(Refused("cannot read"), *TRAIN, "--data", folder)


@pytest.mark.parametrize("place", ["train", "test", "train/a/b/c", "."])
def test_a_folder_without_images_of_both_splits(tmp_path: Path, place: str):
    folder = tmp_path / "set"
    (folder / place).mkdir(parents=True)
    (folder / place / "x.png").write_bytes(GOOD)
    words = "is in no folder of a class; data may be: " if place == "." else "; expected train and test"
    holds(Refused(words), *TRAIN, "--data", folder)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_among_images(tmp_path: Path, kind: str):
    folder = tmp_path / "set"
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            (folder / split / label / "0.png").write_bytes(GOOD)
    odd = folder / "train" / "dog" / "1.png"
    match kind:
        case "link":
            odd.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(odd)
        case _:
            odd.mkdir()
    # What is no file is named and passed over; nothing waits for it.
    holds(Accepted(), *TRAIN, "--data", folder, "--batch-size", 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_any_bit_of_a_parquet_file_may_be_wrong(tmp_path: Path, seed: int):
    folder = written(tmp_path / "set", rows())
    file = folder / "train.parquet"
    file.write_bytes(flipped(file.read_bytes(), seed))
    done = bitline(*TRAIN, "--data", folder)
    assert done.status in (0, 1), done.err
