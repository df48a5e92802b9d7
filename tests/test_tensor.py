"""The programs of tensor/ measure the ladder's own step, and draw what they print.

No test looks at a real time. The CPU stands in for a GPU, under its other name.
"""

import re
from unittest import mock

import draw_ladder
import gpu_speedup
import numpy as np
import pytest
import torch
from collection import TENSOR, curve

GPU = "cpu:0"


def test_step_is_the_one_of_the_ladder():
    network = gpu_speedup.make_network(1, "cpu")
    found = [gpu_speedup.train_step(*network, 1e-6).item() for _ in range(20)]
    assert found == curve(TENSOR, steps=20).tolist()


@pytest.mark.parametrize("size", gpu_speedup.SIZES)
def test_what_is_timed_is_a_training_with_so_many_threads(size, monkeypatch):
    """The learning rate that the script chooses fits each size."""
    arguments, threads = [], set()

    def train_step(*args):
        arguments[:] = args
        threads.add(torch.get_num_threads())

    with monkeypatch.context() as patch:
        patch.setattr(gpu_speedup, "train_step", train_step)
        assert gpu_speedup.seconds_per_step(size, "cpu", threads=2) > 0
    assert threads == {2}
    losses = [gpu_speedup.train_step(*arguments).item() for _ in range(10)]
    assert losses[-1] < losses[0]


def test_speedups_are_printed_and_drawn(monkeypatch, capsys):
    """One thread takes size**2 ms for a step, all threads size ms, a GPU 0.5 ms."""

    def seconds_per_step(size, device, threads):
        return 0.0005 if device == GPU else {1: size**2, 2: size}[threads] / 1000

    monkeypatch.setattr(gpu_speedup, "seconds_per_step", seconds_per_step)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr("sys.argv", ["", "--device", GPU, "--plot", "a.png"])
    with mock.patch.object(gpu_speedup, "draw") as draw:
        gpu_speedup.main()

    sizes = np.array(gpu_speedup.SIZES)
    columns = {"all threads": sizes, GPU: 2 * sizes**2}
    head, *rows = capsys.readouterr().out.splitlines()
    assert re.split("  +", head) == ["size", "one thread", *columns]
    printed = [[float(number) for number in re.findall(r"[\d.]+", r)] for r in rows]
    expected = np.transpose([sizes, sizes**2, *columns.values()])
    np.testing.assert_allclose(printed, expected, rtol=0, atol=0.006)
    (drawn,) = draw.call_args.args
    assert drawn == {name: pytest.approx(columns[name].tolist()) for name in columns}


def test_picture_of_the_speedups():
    speedups = {"all threads": [1, 2, 3, 4, 5, 6, 7], GPU: [0.1] * 7}
    (axes,) = gpu_speedup.draw(speedups).axes
    baseline, *lines = axes.lines
    assert baseline.get_ydata() == [1, 1]
    shown = {line.get_label(): list(line.get_ydata()) for line in lines}
    assert shown == speedups
    assert all(list(line.get_xdata()) == gpu_speedup.SIZES for line in lines)


def test_picture_of_the_ladder():
    """On a logarithmic axis, or all losses but the first would be at the bottom."""
    a, b = {1: 3e7, 2: 1e4}, {1: 7e2, 2: 1e-6}
    curves = {"tensor/two_layer_net_numpy.py": a, "advanced/dynamic_net.py": b}
    (axes,) = draw_ladder.draw(curves).axes
    shown = {line.get_label(): dict(line.get_xydata().tolist()) for line in axes.lines}
    assert shown == {"numpy": a, "dynamic_net": b}
    assert axes.get_yscale() == "log"


def test_a_picture_of_an_unknown_format_gets_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["", "--plot", "a.picture"])
    monkeypatch.setattr(draw_ladder, "losses_of", lambda script: {1: 1.0, 200: 1.0})
    with pytest.raises(SystemExit, match="2"):
        draw_ladder.main()
    assert "error: cannot write a.picture: " in capsys.readouterr().err
