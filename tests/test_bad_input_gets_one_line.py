"""Wrong options: exit status 2 and one line that says what is wrong, no traceback."""

import sys

import pytest
import torch
from collection import DEVICES, SCRIPTS, TENSORFLOW, execute, options

MISSING = [name for name in DEVICES if not getattr(torch, name).is_available()]


def bad_options(script):
    """Yield (options, what the line must name) for the options that the script has."""
    yield ["--no-such-option"], "--no-such-option"
    yield ["surplus"], "surplus"
    for name, kind in options(script).items():
        if kind in ("int", "float"):
            yield [name, "ten"], f"{name}: invalid {kind} value: 'ten'"
            yield [name], f"{name}: expected one argument"
        if name == "--steps":
            yield [name, "0"], f"{name}: must be 1 or more"
            yield [name, "-5"], f"{name}: must be 1 or more"
            yield [name, "1.5"], f"{name}: invalid int value: '1.5'"
        if name == "--device":
            yield [name, "toaster"], f"{name}: invalid choice: 'toaster'"
            yield [name, MISSING[0]], f"{name}: invalid choice: '{MISSING[0]}'"


CASES = [(script, *case) for script in SCRIPTS for case in bad_options(script)]


def assert_one_line(stderr, what):
    (line,) = stderr.splitlines()
    assert "error: " in line and what in line


@pytest.mark.parametrize("script, wrong, what", CASES)
def test_wrong_option(script, wrong, what, capfd):
    with pytest.raises(SystemExit) as exit:
        execute(script, argv=wrong)
    assert exit.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert_one_line(err, what)


@pytest.mark.parametrize(
    "command", [(script, "--steps", "0") for script in SCRIPTS], ids=SCRIPTS
)
def test_wrong_option_in_a_process_of_its_own(run):
    assert (run.returncode, run.stdout) == (2, "")
    assert_one_line(run.stderr, "--steps")


def test_missing_tensorflow_is_said_in_one_line(capfd, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "tensorflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(SystemExit) as exit:
        execute(TENSORFLOW)
    assert exit.value.code == 2
    assert_one_line(capfd.readouterr().err, "pip install tensorflow")
