"""Every script runs as a reader runs it: without a complaint, the same each time."""

import math
import re

import pytest
import torch
from collection import (
    DEVICES,
    SCRIPTS,
    finished,
    losses,
    options,
    short,
    source,
)

# Those with epochs run as long as they do for the README.
SHORT = [(s,) if "--epochs" in options(s) else short(s) for s in SCRIPTS]
TRAINING = [words for words in SHORT if {"--steps", "--epochs"} & {*options(words[0])}]
STEPPING = [words for words in SHORT if "--steps" in words]


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
    assert all(map(math.isfinite, found.values()))
    early = 3 if "--epochs" in options(command[0]) else 50
    assert found[early] < found[1] / 2
    assert command[1:] == () or list(found)[-1] == early


def progress(text):
    """Return the lines of the steps, without what a script says after the last."""
    return [line for line in text.splitlines() if losses(line)]


@pytest.mark.parametrize("command", [words[:1] for words in STEPPING], ids=" ".join)
def test_a_longer_run_begins_with_the_same_lines(run, command):
    again = progress(finished(short(command[0])).stdout)
    assert progress(run.stdout)[: len(again)] == again


# A few, as starting all of them takes a minute.
FORKED = [words for words in STEPPING if "two_layer_net" in words[0]][1::2]


@pytest.mark.parametrize("command", FORKED, ids=" ".join)
def test_a_fork_and_a_process_of_its_own_print_the_same(run, real_run):
    """Only the seconds that a script has measured may differ."""
    same = [vars(done) | {"args": None} for done in (run, real_run)]
    for done in same:
        done["stdout"] = re.sub(r"(?<=seconds )\S+", "?", done["stdout"])
    assert same[0] == same[1]


@pytest.mark.parametrize("device", DEVICES[1:])
def test_prints_the_same_losses_on_every_device(device):
    if not getattr(torch, device).is_available():
        pytest.skip(f"there is no {device} here")
    scripts = [
        script
        for script in SCRIPTS
        if "--device" in options(script) and f'"{device}"' in source(script)
    ]
    assert scripts
    for script in scripts:
        run, on_cpu = finished(short(script, device)), finished(short(script))
        assert (run.returncode, run.stderr) == (0, ""), script
        if "Dropout(" not in source(script):  # the device draws by itself what to drop
            found = losses(run.stdout)
            assert found == pytest.approx(losses(on_cpu.stdout), rel=1e-3), script
