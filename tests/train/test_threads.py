"""Threads: four for each core at most where asked for; a configuration of a larger machine gets fewer."""

import logging

import pytest
import torch

from bitline.errors import DataError
from bitline.files import CONFIG, read_json
from bitline.train import checked
from bitline.train.hardware import set_threads
from bitline.train.run import train


@pytest.mark.parametrize(("cores", "most"), [(1, 4), (2, 8), (None, 4), (256, 512)])
def test_four_threads_for_each_core_may_be_asked_for(monkeypatch, cores, most):
    asked: list[int] = []
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    set_threads(most)
    set_threads(None)
    assert asked == [most]
    for threads in (most + 1, 0):
        with pytest.raises(DataError, match=f"^threads is {threads}; allowed: 1 to {most}, four for each core"):
            set_threads(threads)


def test_a_configuration_of_a_larger_machine_is_trained_with_fewer_threads_which_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    before = torch.get_num_threads()
    asked: list[int] = []
    real = torch.set_num_threads
    monkeypatch.setattr("torch.set_num_threads", lambda count: (asked.append(count), real(min(count, 2))))
    settings = checked(
        model="lenet5", data="digits", width=0.25, epochs=1, batch_size=64, epoch_images=64, threads=300, out=tmp_path
    )
    with caplog.at_level(logging.WARNING, "bitline"):
        run = train(settings)
    assert asked[0] == 4
    assert max(asked) <= max(4, before)
    assert "threads is 300: 4 are used, four for each core of this machine" in caplog.text
    assert read_json(run / CONFIG)["threads"] == 300
