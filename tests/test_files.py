"""Files are whole or absent, and damaged ones are told."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from bitline import files
from bitline.errors import DataError, ExportError


def test_a_new_file_takes_its_place_only_when_it_is_complete(tmp_path):
    path = tmp_path / "folder" / "text"
    files.write_text(path, "old")
    with files.new_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["text"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "text"
    files.write_text(path, "old")

    def fail() -> None:
        with files.new_file(path) as part:
            part.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["text"]


def test_what_a_killed_process_left_is_removed_by_name(tmp_path):
    for name in (".config.json.1.tmp", ".other.json.1.tmp", "config.json"):
        (tmp_path / name).write_text("half")
    files.remove_parts(tmp_path, ["config.json"])
    assert sorted(os.listdir(tmp_path)) == [".other.json.1.tmp", "config.json"]


def test_what_a_library_writes_beside_its_file_goes_with_it(tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "model.safetensors"
    seen: list[str] = []

    def like_a_library(path: Path) -> None:
        path.with_name(".tmp123").write_text("half")
        seen.extend(os.listdir(tmp_path))
        path.write_text("whole")

    with files.new_file(whole) as part:
        like_a_library(part)
    assert ".tmp123" not in seen
    assert os.listdir(tmp_path) == ["whole.safetensors"]

    killed = "import os, sys; from bitline import files; from pathlib import Path\n"
    killed += (
        "with files.new_file(Path(sys.argv[1])) as part: part.with_name('.tmp123').touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(half)], check=False)
    assert len(os.listdir(tmp_path)) == 2
    files.remove_parts(tmp_path, [half.name])
    assert os.listdir(tmp_path) == ["whole.safetensors"]


def test_a_file_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    tensors = {"a": torch.ones(2)}
    for write in (
        lambda path: files.write_json(path, {}),
        lambda path: files.write_text(path, ""),
        lambda path: files.write_tensors(path, tensors, {}),
    ):
        with pytest.raises(ExportError, match=r"cannot write .*below"):
            write(tmp_path / "file" / "below")


def test_json_comes_back_as_it_was_written(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": [1, 2.5, None], "µ": "Ω"})
    assert files.read_json(tmp_path / "a.json") == {"b": [1, 2.5, None], "µ": "Ω"}


@pytest.mark.parametrize(
    ("content", "message"), [("{", "cannot read"), ("[]", "holds a list; expected an object"), (None, "cannot read")]
)
def test_what_is_no_json_object_is_refused(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        files.read_json(path)


def test_tensors_come_back_with_the_header_of_their_file(tmp_path):
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, {"a": torch.arange(3)}, {"format": "test"})
    read = files.read_tensors(path)
    assert torch.equal(read.tensors["a"], torch.arange(3))
    assert read.metadata == {"format": "test"}


def test_absent_and_damaged_tensors_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        files.read_tensors(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="is damaged"):
        files.read_tensors(tmp_path / "a.safetensors")


def test_the_module_does_not_load_torch():
    program = "import sys, bitline.files; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_threads_that_write_one_file_leave_one_of_their_versions(tmp_path):
    path = tmp_path / "file.json"

    def write(number: int) -> None:
        for _ in range(20):
            files.write_json(path, {"number": number})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert files.read_json(path)["number"] in range(4)
    assert [place.name for place in tmp_path.iterdir()] == ["file.json"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    files.write_json(tmp_path / "link.json", {"a": 1})
    assert (tmp_path / "link.json").is_symlink()
    assert files.read_json(tmp_path / "real.json") == {"a": 1}


def test_what_is_no_file_is_written_to_and_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit(pipe.read_text)
        files.write_json(pipe, {"a": 1})
        assert json.loads(text.result()) == {"a": 1}
    assert pipe.is_fifo()


def test_a_folder_is_refused_by_its_name(tmp_path):
    with pytest.raises(ExportError, match="it is a folder"):
        files.write_json(tmp_path, {})


def test_everybody_may_read_what_a_library_writes_for_its_user_alone(tmp_path):
    files.write_tensors(tmp_path / "t.safetensors", {"a": torch.zeros(2)}, {})
    assert (tmp_path / "t.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_number_that_is_not_finite_becomes_null_and_is_said_with_its_key(tmp_path, caplog):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": {"b": [1.0, float("nan")]}, "c": float("-inf"), "d": 2})
    assert path.read_text() == files.json_text({"a": {"b": [1.0, None]}, "c": None, "d": 2}) + "\n"
    assert caplog.messages == ["not finite, and therefore null in the JSON: a.b.1 = nan, c = -inf"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN is no number that JSON knows"),
        ('{"a": -Infinity}', "-Infinity is no number that JSON knows"),
        ('{"a": 1e999}', "'1e999' is no number that JSON knows"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "Exceeds the limit"),
    ],
    ids=["nan", "infinity", "overflow", "deep", "digits"],
)
def test_text_that_json_does_not_know_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=f"^cannot read {path}: {message}"):
        files.read_json(path)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json(tmp_path / "x.json") == {"a": 1}


def test_a_name_too_long_for_a_file_is_refused(tmp_path):
    with pytest.raises(ExportError, match="File name too long"):
        files.write_json(tmp_path / ("x" * 300), {})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_beside_a_file_that_could_not_take_its_place(tmp_path, monkeypatch):
    for error in (OSError("no space left on device"), KeyboardInterrupt()):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *_, error=error: (_ for _ in ()).throw(error))
            with pytest.raises((ExportError, KeyboardInterrupt)):
                files.write_text(tmp_path / "x", "new")
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_beside_an_output_goes_when_it_is_written_again(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, other = (tmp_path / f".a.json.{pid}.0123abcd.tmp" for pid in (gone.pid, os.getpid()))
    left.touch()
    other.touch()

    files.probe(tmp_path / "a.json")

    assert [path.name for path in tmp_path.iterdir()] == [other.name]


def test_what_a_running_process_writes_is_not_removed(tmp_path):
    """Two processes decode the same images at once: neither takes the other's file away."""
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead, alive = (tmp_path / f".x.json.{pid}.abcd.tmp" for pid in (gone.stdout.strip(), os.getpid()))
    for part in (dead, alive):
        part.mkdir()
        (part / "x.json").write_text("{")

    files.remove_parts(tmp_path, ["x.json"])

    assert not dead.exists()
    assert (alive / "x.json").exists()
