"""The speeds of the CPU and the GPU are measured rightly, and compared rightly.

No test looks at a real time: the clock is a fake, or the times are given. The CPU
stands in for a GPU, under its other name.
"""

import os
import re
import time

import numpy as np
import pytest
import torch
from collection import TENSOR, curve, execute
from test_bad_input_gets_one_line import assert_one_line

SPEEDUP = "tensor/gpu_speedup.py"
GPU = "cpu:0"
# All threads are size / 1.5 times as fast as one, a GPU takes as long for every size.
GIVEN = "{'one thread': size**2, 'all threads': 1.5 * size}.get(way, 2) / 1000"
GIVEN_TIMES = [
    ("if getattr(torch, d).is_available()]", f'if d == "cpu"] + ["{GPU}"]'),
    ("times = {", "threads_of = {}\ntimes = {"),
    ("1, args.device)\n", "1, args.device)\ncold = 0.01\n"),
    ("step = make_step(size, device)", "step = make_step(1, device)"),
    ("append(measure(step, device))", f"append({GIVEN})"),
    (
        "    one, *rest",
        "        threads_of[way] = torch.get_num_threads()\n    one, *rest",
    ),
]


@pytest.fixture(autouse=True)
def synchronized(monkeypatch):
    """How often the script has waited for the device."""
    calls = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: calls.append(None))
    return calls


def run_with_given_times(*argv):
    return execute(SPEEDUP, *GIVEN_TIMES, argv=argv)


@pytest.fixture(scope="module")
def speedup():
    """The script's variables after a run."""
    return run_with_given_times()


def rows(text):
    """Return the numbers in the lines of the table."""
    lines = [line for line in text.splitlines() if line.endswith(" ms")]
    return [[float(n) for n in re.findall(r"[\d.]+", line)] for line in lines]


def test_its_step_is_the_one_of_the_ladder(speedup):
    step = speedup["make_step"](1, "cpu")
    found = torch.stack([step() for _ in range(20)]).double()
    assert torch.equal(found, curve(TENSOR, steps=20))


def test_every_size_can_be_trained(speedup):
    for size in speedup["sizes"]:
        step = speedup["make_step"](size, "cpu")
        losses = torch.stack([step() for _ in range(8)])
        assert losses.isfinite().all()
        assert losses[-1] < losses[0] / 1.3


def test_table_has_all_sizes_and_the_crossing(capsys):
    variables = run_with_given_times()
    out = capsys.readouterr().out
    expected = [[size, size / 1.5, size**2] for size in variables["sizes"]]
    np.testing.assert_allclose(rows(out), expected, rtol=0, atol=0.006)
    assert "all threads win from size 1.50 on\nno GPU: " in out
    assert "without a warm-up, size 1 seems to take 10.0 times as long" in out
    assert variables["threads_of"] == {"one thread": 1, "all threads": os.cpu_count()}


def test_a_gpu_is_compared_with_the_better_half_of_the_cpu(capsys, synchronized):
    run_with_given_times("--device", GPU)
    out = capsys.readouterr().out
    size, all_threads, gpu, _ = np.transpose(rows(out))
    assert size[-1] == 8
    np.testing.assert_allclose(all_threads, size / 1.5, rtol=0, atol=0.006)
    np.testing.assert_allclose(gpu, size**2 / 2, rtol=0, atol=0.006)
    assert "cpu:0 wins from size 1.50 on\nwithout waiting, size 8 seems to take " in out
    assert "without a warm-up, size 1 seems to take 5.0 times as long" in out
    assert "no GPU" not in out
    assert len(synchronized) == 1  # for the cold step; not for the one without waiting


@pytest.mark.parametrize(
    "slow, fast, size",
    [
        ([3, 3, 3], [1, 2, 2.9], 0),
        ([1, 1, 1], [2, 2, 2], np.inf),
        ([1, 1, 1], [0.5, 0.5, 2], np.inf),  # ahead, but not at the largest size
        ([1, 1, 1], [2, 0.5, 0.25], 1 + 1 / 3),  # 1/2, then 2 times as fast
        ([1, 1, 1], [0.5, 4, 0.5], 2 + 2 * 0.75 / 1.75),  # the last crossing counts
        ([1, 1, 1], [2, 1, 0.5], 2),  # as fast, and then faster
    ],
)
def test_crossing(speedup, slow, fast, size):
    found = speedup["crossing"]([1, 2, 4], np.array(slow), np.array(fast))
    assert found == pytest.approx(size)


class FakeClock:
    """A clock that only a step, or waiting for the device, moves on."""

    def __init__(self, seconds):
        self.now, self.seconds = 0.0, iter(seconds)

    def step(self):
        self.now += next(self.seconds)


def test_measure_is_a_median_after_a_warm_up(speedup, monkeypatch):
    """A step of 0.9 ms calls for 12 in a try; the first step and a try are slow."""
    tries = np.repeat([1e-3, 0.5, 2e-3, 1e-3, 3e-3], 12)
    clock = FakeClock([5, 9e-4, *tries])
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    assert speedup["measure"](clock.step, "cpu") == pytest.approx(2e-3)
    assert next(clock.seconds, None) is None


def test_a_long_step_is_measured_once(speedup, monkeypatch):
    clock = FakeClock([5, 0.2, 0.3])
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    assert speedup["measure"](clock.step, "cpu") == pytest.approx(0.3)


def test_clock_waits_for_a_device(speedup, monkeypatch):
    clock = FakeClock([1e-3] * 20)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: clock.wait())
    clock.wait = lambda: setattr(clock, "now", clock.now + 1)
    assert speedup["clock"](clock.step, 10, "cpu") == pytest.approx(1e-3)
    assert speedup["clock"](clock.step, 10, "cuda") == pytest.approx(0.101)


def test_plot_is_a_picture(tmp_path):
    file = tmp_path / "times.png"
    file.write_text("an older one")
    run_with_given_times("--plot", str(file))
    assert file.read_bytes().startswith(b"\x89PNG\r\n")
    assert os.listdir(tmp_path) == ["times.png"]


@pytest.mark.parametrize("name", ["no_such_folder/times.png", "."])
def test_a_plot_that_cannot_be_written_is_refused(name, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        run_with_given_times("--plot", str(tmp_path / name))
    out, err = capsys.readouterr()
    assert (exit.value.code, out, os.listdir(tmp_path)) == (2, "", [])
    assert_one_line(err, "name a file in a folder that exists")
