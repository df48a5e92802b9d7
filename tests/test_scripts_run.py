"""Every script runs as a reader runs it: without a complaint, the same each time."""

import math

import pytest
import torch
from collection import DEVICES, SCRIPTS, losses, options, start

TRAINING = [script for script in SCRIPTS if "--steps" in options(script)]
SHORT = {s: (s, "--steps", "50") if s in TRAINING else (s,) for s in SCRIPTS}
ON_DEVICES = [
    (*SHORT[script], "--device", device)
    for script in SCRIPTS
    if "--device" in options(script)
    for device in DEVICES
    if getattr(torch, device).is_available()
]


@pytest.mark.parametrize("command", SHORT.values(), ids=SCRIPTS)
def test_exits_with_0_and_says_nothing_on_stderr(run):
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout


@pytest.mark.parametrize("command", SHORT.values(), ids=SCRIPTS)
def test_writes_no_file(run):
    assert run.files == []


@pytest.mark.parametrize("command", [SHORT[s] for s in TRAINING], ids=TRAINING)
def test_loss_is_finite_and_at_least_halves_in_50_steps(run):
    found = losses(run.stdout)
    assert list(found) == [1, 50]
    assert all(map(math.isfinite, found.values()))
    assert found[50] < found[1] / 2


@pytest.mark.parametrize("command", [(script,) for script in TRAINING], ids=TRAINING)
def test_a_longer_run_begins_with_the_same_lines(run, command):
    again = start(SHORT[command[0]]).result()
    assert run.stdout.splitlines()[:2] == again.stdout.splitlines()


@pytest.mark.parametrize("command", ON_DEVICES, ids=" ".join)
def test_prints_the_same_losses_on_every_device(run, command):
    assert (run.returncode, run.stderr) == (0, "")
    on_cpu = losses(start(SHORT[command[0]]).result().stdout)
    assert losses(run.stdout) == pytest.approx(on_cpu, rel=1e-3)
