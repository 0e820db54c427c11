"""A program that would unzip to more than its file can hold is refused before anything of it is read."""

import json
import zipfile
from pathlib import Path

import pytest

from bitline.errors import DataError
from bitline.models.program import archive, load_program


def zipped(path: Path, parts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return path


def test_a_file_that_unzips_to_far_more_than_it_holds_is_refused_unread(tmp_path, monkeypatch):
    bomb = zipped(tmp_path / "bomb.pt2", {"net/models/model.json": b" " * (archive.FREE_BYTES + 1)})
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(DataError, match=f"unzips to {archive.FREE_BYTES + 1:,}; allowed for a file of its size"):
        load_program(bomb)


def test_a_size_that_is_declared_too_small_reads_no_more(tmp_path):
    path = zipped(tmp_path / "lie.pt2", {"net/models/model.json": b" " * 2_000_000})
    content = path.read_bytes()
    declared, lie = (2_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little")
    assert content.count(declared) == 2  # in the part's own header, and in the list of parts
    path.write_bytes(content.replace(declared, lie))
    with pytest.raises(DataError, match=r"cannot read .*CRC"):
        load_program(path)


def test_content_below_the_free_size_is_read_whatever_its_ratio(tmp_path):
    path = zipped(tmp_path / "small.pt2", {"net/other.json": b" " * 2_000_000})
    with pytest.raises(DataError, match=r"it has no models/model\.json"):
        load_program(path)


def test_a_tensor_that_repeats_a_few_bytes_is_refused_before_it_is_made(tmp_path):
    whole = [{"as_int": 2**15}, {"as_int": 2**15}]
    meta = {"dtype": 7, "layout": 7, "sizes": whole, "strides": [{"as_int": 0}] * 2, "storage_offset": {"as_int": 0}}
    entry = {"use_pickle": False, "tensor_meta": meta, "path_name": "w", "is_param": True}
    parts = {
        "net/models/model.json": b'{"graph_module": {"graph": {}, "signature": {}}}',
        "net/data/weights/model_weights_config.json": json.dumps({"config": {"big": entry}}).encode(),
        "net/data/weights/w": bytes(4),
        "net/data/constants/model_constants_config.json": b'{"config": {}}',
    }
    with pytest.raises(DataError, match="its tensors take more than is allowed for a file of its size, from big on"):
        load_program(zipped(tmp_path / "wide.pt2", parts))
