"""Every script runs as a reader runs it: without a complaint, the same each time."""

import math

import pytest
import torch
from collection import (
    DEVICES,
    SCRIPTS,
    can_fork,
    losses,
    options,
    short,
    source,
    start,
)

SHORT = [short(script) for script in SCRIPTS]
TRAINING = [words for words in SHORT if {"--steps", "--epochs"} & set(words)]
STEPPING = [words for words in SHORT if "--steps" in words]
# The device that is taken by itself, and those that this machine has beside its CPU.
ON_DEVICES = [short(words[0], None) for words in SHORT if "--epochs" in words]
ON_DEVICES += [
    short(words[0], device)
    for device in DEVICES[1:]
    if getattr(torch, device).is_available()
    for words in SHORT
    if "--device" in words
]


@pytest.mark.parametrize("command", SHORT, ids=" ".join)
def test_exits_with_0_and_says_nothing_on_stderr(run):
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout


@pytest.mark.parametrize("command", SHORT, ids=" ".join)
def test_writes_nothing_but_what_it_was_told_to(run, command):
    told = [name for name in options(command[0]) if not name.startswith("--")]
    assert run.files == told


@pytest.mark.parametrize("command", TRAINING, ids=" ".join)
def test_loss_is_finite_and_at_least_halves(run, command):
    found = losses(run.stdout)
    assert list(found)[-1] == int(command[-1])
    assert all(map(math.isfinite, found.values()))
    assert found[int(command[-1])] < found[1] / 2


def progress(text):
    """Return the lines of the steps, without what a script says after the last."""
    return [line for line in text.splitlines() if losses(line)]


@pytest.mark.parametrize("command", [words[:1] for words in STEPPING], ids=" ".join)
def test_a_longer_run_begins_with_the_same_lines(run, command):
    again = progress(start(short(command[0])).result().stdout)
    assert progress(run.stdout)[: len(again)] == again


# One script of each folder, as starting all of them takes a minute.
FIRST = {words[0].split("/")[0]: words for words in SHORT if can_fork(words[0])}


@pytest.mark.parametrize("command", FIRST.values(), ids=" ".join)
def test_a_fork_and_a_process_of_its_own_print_the_same(run, real_run):
    assert vars(run) | {"args": None} == vars(real_run) | {"args": None}


@pytest.mark.parametrize("command", ON_DEVICES, ids=" ".join)
def test_prints_the_same_losses_on_every_device(run, command):
    on_cpu = start(short(command[0])).result()
    assert (run.returncode, run.stderr) == (0, "")
    if "Dropout(" not in source(command[0]):  # which units, the device draws by itself
        assert losses(run.stdout) == pytest.approx(losses(on_cpu.stdout), rel=1e-3)
    if "--device" not in command:
        assert run.stdout == on_cpu.stdout
