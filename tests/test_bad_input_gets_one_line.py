"""Wrong options: exit status 2 and one line that says what is wrong, no traceback."""

import sys

import pytest
import torch
from collection import (
    DEVICES,
    NOTICE,
    SCRIPTS,
    can_fork,
    execute,
    needs_tensorflow,
    options,
    outcome,
    run_python,
    short,
    skip_if_missing,
    source,
)

MISSING = [name for name in DEVICES if not getattr(torch, name).is_available()]


def bad_options(script):
    """Yield (options, what the line must name) for the options that the script has."""
    known = options(script)
    needed = [name for name in known if not name.startswith("--")]
    yield [*needed, "--no-such-option"], "--no-such-option"
    yield [*needed, "surplus"], "surplus"
    for name, kind in known.items():
        if kind in ("int", "float"):
            yield [*needed, name, "ten"], f"{name}: invalid {kind} value: 'ten'"
            yield [*needed, name], f"{name}: expected one argument"
            yield [*needed, name, "-5"], f"{name}: must be "
        if name in ("--steps", "--epochs"):
            yield [name, "0"], f"{name}: must be 1 or more"
            yield [name, "1.5"], f"{name}: invalid int value: '1.5'"
        if name == "--device":
            yield [name, "toaster"], f"{name}: invalid choice: 'toaster'"
            yield [name, MISSING[0]], f"{name}: invalid choice: '{MISSING[0]}'"


CASES = [(script, *case) for script in SCRIPTS for case in bad_options(script)]


def assert_one_line(stderr, what):
    (line,) = stderr.splitlines()
    assert "error: " in line and what in line


@pytest.mark.parametrize("script, wrong, what", CASES)
def test_wrong_option(script, wrong, what, capfd, monkeypatch, tmp_path):
    skip_if_missing(script)
    monkeypatch.chdir(tmp_path)
    code, out, err = outcome(script, argv=wrong)
    assert (code, out) == (2, "")
    assert_one_line(err, what)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


# Not those that take seconds to start.
PROCESSES = [(*short(s), "--no-such-option") for s in SCRIPTS if can_fork(s)]


@pytest.mark.parametrize("command", PROCESSES, ids=" ".join)
def test_wrong_option_in_a_process_of_its_own(run):
    assert (run.returncode, run.stdout, run.files) == (2, "", [])
    assert_one_line(run.stderr, "--no-such-option")


NEED_TENSORFLOW = [s for s in SCRIPTS if needs_tensorflow(s)]
NEED_CPP = [s for s in SCRIPTS if "Python.h" in source(s)]


@pytest.mark.parametrize("script", NEED_TENSORFLOW)
def test_missing_tensorflow_is_said_in_one_line(script, capfd, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "tensorflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(SystemExit) as exit:
        execute(script)
    assert exit.value.code == 2
    assert_one_line(capfd.readouterr().err, "pip install tensorflow")


# One answers like a compiler, but finds no Python.h.
COMPILERS = {
    "missing": None,
    "broken": "exit 1",
    "without Python.h": '[ "$1" = --version ] && exec echo "g++ 13"; exit 1',
}


@pytest.mark.skipif(sys.platform == "win32", reason="the compilers are shell scripts")
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("script", NEED_CPP)
def test_compiler_that_fails_is_said_in_one_line(script, compiler, tmp_path):
    file = tmp_path / "compiler"
    if COMPILERS[compiler]:
        file.write_text("#!/bin/sh\n" + COMPILERS[compiler], encoding="utf-8")
        file.chmod(0o755)
    done = run_python(
        (script,), tmp_path, CXX=str(file), TORCHINDUCTOR_CACHE_DIR=str(tmp_path)
    )
    assert done.returncode == 2
    assert_one_line(NOTICE.sub("", done.stderr), "are g++ and Python.h")
    assert "loss" not in done.stdout
