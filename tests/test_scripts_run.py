"""Every script runs as a reader runs it: without a complaint, and it learns."""

import ast
import math

import pages
import pytest
import torch
from collection import (
    DEVICES,
    SCRIPTS,
    expected_status,
    losses,
    options,
    outcome,
    run,
    short,
    skip_if_missing,
    source,
)

each_script = pytest.mark.parametrize("script", SCRIPTS)


def usual(script):
    """Return a command that a page shows, so that its run is shared, or a short one."""
    shown = [output.command for output in pages.outputs()]
    shown = [
        command
        for command in shown
        if command[0] == script
        and all(word.startswith("--") or word.isdecimal() for word in command[1:])
    ]
    return min(shown, key=len, default=short(script))


@each_script
def test_runs_and_learns_and_writes_nothing_unasked(script):
    """A file that is to be read is not there: then one line says so."""
    done = run(*usual(script))
    named = [name for name in options(script) if not name.startswith("-")]
    if named and done.returncode == 2:
        assert named[0] in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        return
    assert done.returncode == expected_status(script), f"{script} fails:\n{done.stderr}"
    assert not done.stderr, f"{script} warns, or prints to stderr:\n{done.stderr}"
    assert done.stdout, f"{script} prints nothing: let it show what there is to learn"
    unasked = set(done.files) - set(named)
    assert not unasked, f"{script} writes {unasked}, which nobody has asked for"
    if {"--steps", "--epochs"} & set(options(script)):
        assert_that_it_learns(script, losses(done.stdout))


# In 50 steps, the GPT learns which characters are frequent and which follow which. Its
# attention needs more steps to find out where to look.
SLOW_TO_START = {"rnn/char_gpt.py": 0.6}


def assert_that_it_learns(script, found):
    """The loss is finite, and at least halves."""
    assert found, f'{script} prints no "step    1  loss 2.5020e+07" at its first step'
    assert all(map(math.isfinite, found.values()))
    first, *_, last = found
    share = SLOW_TO_START.get(script, 0.5)
    assert found[last] < found[first] * share, f"{script} does not learn"


@each_script
def test_help_is_the_docstring(script):
    skip_if_missing(script)
    code, output, errors = outcome(script, argv=["--help"])
    assert (code, errors) == (0, "")
    lesson = ast.get_docstring(ast.parse(source(script)))
    assert " ".join(lesson.split()) in " ".join(output.split()), (
        f"{script} --help does not show its docstring: "
        "argparse.ArgumentParser(description=__doc__)"
    )


@pytest.mark.parametrize("device", DEVICES[1:])
def test_prints_the_same_losses_on_every_device(device):
    if not getattr(torch, device).is_available():
        pytest.skip(f"there is no {device} here")
    scripts = [
        script
        for script in SCRIPTS
        if "--device" in options(script) and device in source(script)
    ]
    assert scripts
    for script in scripts:
        done, on_cpu = run(*short(script, device)), run(*short(script))
        assert (done.returncode, done.stderr) == (0, ""), script
        if "Dropout(" not in source(script):  # the device draws by itself what to drop
            found = losses(done.stdout)
            assert found == pytest.approx(losses(on_cpu.stdout), rel=1e-3), script
