"""Every script runs as a reader runs it: without a complaint, the same each time."""

import math

import pytest
from collection import SCRIPTS, losses, options, start

TRAINING = [script for script in SCRIPTS if "--steps" in options(script)]


SHORT = {s: (s, "--steps", "50") if s in TRAINING else (s,) for s in SCRIPTS}


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
