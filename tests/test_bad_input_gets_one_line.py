"""A wrong option, a missing TensorFlow, a compiler that fails: a line, and status 2."""

import itertools
import sys

import pytest
from collection import (
    SCRIPTS,
    needs_tensorflow,
    outcome,
    run_in,
    short,
    skip_if_missing,
    source,
)

EMPTY_MODULE = "raise ModuleNotFoundError(name='tensorflow')"


@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_option(script, tmp_path, monkeypatch):
    """argparse says what is wrong, and nothing has happened before that."""
    skip_if_missing(script)
    monkeypatch.chdir(tmp_path)
    argv = [*short(script)[1:], "--no-such-option"]
    code, output, errors = outcome(script, argv=argv)
    assert (code, output, list(tmp_path.iterdir())) == (2, "", [])
    assert "unrecognized arguments: --no-such-option" in errors, (
        f"{script} takes options that nobody has told it of: use argparse"
    )


@pytest.mark.parametrize("script", [s for s in SCRIPTS if needs_tensorflow(s)])
def test_missing_tensorflow_is_told_in_one_line(script, tmp_path):
    (tmp_path / "tensorflow.py").write_text(EMPTY_MODULE, encoding="utf-8")
    done = run_in(tmp_path, script, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "pip install tensorflow" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


COMPILED = [script for script in SCRIPTS if "Python.h" in source(script)]
# One answers like a compiler, but finds no Python.h.
COMPILERS = {
    "missing": None,
    "broken": "exit 1",
    "without Python.h": '[ "$1" = --version ] && exec echo "g++ 13"; exit 1',
}


@pytest.mark.skipif(sys.platform == "win32", reason="the compilers are shell scripts")
@pytest.mark.parametrize(
    "script, compiler",
    list(zip(itertools.cycle(COMPILED), COMPILERS)),
)
def test_compiler_that_fails_is_told_in_one_line(script, compiler, tmp_path):
    file = tmp_path / "compiler"
    if COMPILERS[compiler]:
        file.write_text("#!/bin/sh\n" + COMPILERS[compiler], encoding="utf-8")
        file.chmod(0o755)
    variables = {"CXX": str(file), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = run_in(tmp_path, script, **variables)
    assert done.returncode == 2
    assert "are g++ and Python.h" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "loss" not in done.stdout
