"""The speeds of a CPU and a GPU are compared on the ladder's own training step.

No test looks at a real time. The CPU stands in for a GPU, under its other name.
"""

import re
import sys

import gpu_speedup
import numpy as np
import pytest
import torch
from collection import TENSOR, curve

GPU = "cpu:0"


def test_its_step_is_the_one_of_the_ladder():
    network = gpu_speedup.make_network(1, "cpu")
    found = [gpu_speedup.train_step(*network, 1e-6).item() for _ in range(20)]
    assert found == curve(TENSOR, steps=20).tolist()


@pytest.mark.parametrize("size", gpu_speedup.SIZES)
def test_every_size_is_trained(size, monkeypatch):
    """The learning rate that the script chooses fits each of them."""
    losses = []

    def train_step(*args, step=gpu_speedup.train_step):
        losses.append(step(*args).item())

    monkeypatch.setattr(gpu_speedup, "train_step", train_step)
    assert gpu_speedup.seconds_per_step(size, "cpu", threads=1) > 0
    assert losses[-1] < losses[0]


def test_a_step_is_timed_with_as_many_threads_as_said(monkeypatch):
    threads = []

    def train_step(*args):
        threads.append(torch.get_num_threads())

    monkeypatch.setattr(gpu_speedup, "train_step", train_step)
    before = torch.get_num_threads()
    gpu_speedup.seconds_per_step(1 / 8, "cpu", threads=3)
    assert set(threads) == {3}
    assert torch.get_num_threads() == before


@pytest.fixture
def compare(monkeypatch, capsys):
    """A function that runs the script with given times and returns the table.

    One thread takes size**2 ms for a step, all threads size ms, a GPU always 0.5 ms.
    """

    def seconds_per_step(size, device, threads):
        if device == GPU:
            return 0.0005
        return {1: size**2, 2: size}[threads] / 1000

    def compare(*options):
        monkeypatch.setattr(sys, "argv", ["gpu_speedup.py", *options])
        gpu_speedup.main()
        head, *rows = capsys.readouterr().out.splitlines()
        return head, [[float(n) for n in re.findall(r"[\d.]+", row)] for row in rows]

    monkeypatch.setattr(gpu_speedup, "seconds_per_step", seconds_per_step)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return compare


def test_table_has_the_time_of_one_thread_and_how_much_faster_all_are(compare):
    head, rows = compare()
    assert re.split("  +", head) == ["size", "one thread", "all threads"]
    expected = [[size, size**2, size] for size in gpu_speedup.SIZES]
    np.testing.assert_allclose(rows, expected, rtol=0, atol=0.006)


def test_a_gpu_gets_a_column(compare):
    head, rows = compare("--device", GPU)
    assert re.split("  +", head)[-1] == GPU
    expected = [[size, size**2, size, 2 * size**2] for size in gpu_speedup.SIZES]
    np.testing.assert_allclose(rows, expected, rtol=0, atol=0.006)


def test_picture_shows_the_table(compare, monkeypatch, tmp_path):
    drawn = []

    def draw(speedups, draw=gpu_speedup.draw):
        drawn.append(draw(speedups))
        return drawn[0]

    monkeypatch.setattr(gpu_speedup, "draw", draw)
    _, rows = compare("--device", GPU, "--plot", str(tmp_path / "times.png"))
    assert (tmp_path / "times.png").read_bytes().startswith(b"\x89PNG")
    curves = {line.get_label(): line.get_ydata() for line in drawn[0].axes[0].lines}
    for column, name in enumerate(["all threads", GPU], start=2):
        shown = [row[column] for row in rows]
        np.testing.assert_allclose(curves[name], shown, rtol=0, atol=0.006)


def test_a_picture_that_cannot_be_written_gets_one_line(compare, tmp_path, capsys):
    file = tmp_path / "no_such_folder" / "times.png"
    with pytest.raises(SystemExit) as exit:
        compare("--plot", str(file))
    assert exit.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert f"error: cannot write {file}: " in line
