"""The table of what each rung costs has every rung, each timed by its own loop."""

import ast
import json
import math
import os
import random
import re
import sys
from unittest import mock

import apart
import benchmark_ladder as benchmark
import forked
import pytest
import torch
from collection import (
    AUTOGRAD,
    COMPILE,
    CUSTOM_FUNCTION,
    DDP,
    DYNAMIC,
    NN,
    NUMPY,
    OPTIM,
    ROOT,
    TENSOR,
    WITHOUT_CPP,
)
from PIL import Image
from readme import README

TEXT = README.read_text(encoding="utf-8")
FLOOR, JAX, DOUBLE = "the matrix products alone", "JAX, jit", "NumPy in float64"
EAGER = f"{benchmark.EAGER} --eager"


def table(text):
    """Return the rows of the first such table in a text, each a list of cells."""
    lines = re.search(r"^\| a step of \|(.+\n)+", text, re.MULTILINE)[0].splitlines()
    head, _, *body = [line.strip("| ").split(" | ") for line in lines]
    return [head, *body]


def everything():
    """Return {name: source} as if JAX and TensorFlow were installed."""
    with mock.patch.object(apart, "installed", return_value=True):
        return benchmark.sources([])


def test_table_has_every_rung():
    _, *body = table(TEXT)
    assert [name for name, *_ in body] == list(everything())


def test_table_is_the_one_in_the_picture():
    with Image.open(ROOT / "tests/benchmark_ladder.png") as image:
        assert table(TEXT) == json.loads(image.text["Description"])


def test_page_says_of_the_table_what_is_in_it():
    (_, *head), (_, *floors), *body = table(TEXT)
    assert head == [f"H = {n}, 1 thread" for n in (100, 400, 1600, 6400)] + [
        "H = 100, 2 threads"
    ]
    small, *_, large, threads = (float(cell[3:-4]) for cell in floors)
    assert threads < small < large
    small, *_, large, threads = (
        {name: float(cells[i]) for name, *cells in body} for i in range(5)
    )
    assert 1 < small[NUMPY] < small[TENSOR] < small[AUTOGRAD] < small[CUSTOM_FUNCTION]
    assert small[DOUBLE] / small[NUMPY] == pytest.approx(2, abs=0.3)
    assert small[NN] < small[OPTIM] and large[NN] < large[OPTIM] / 1.4
    assert max(small, key=small.get) == max(threads, key=threads.get) == EAGER
    assert max(small[COMPILE], small[JAX]) < 1.4
    assert all(threads[name] > small[name] for name in small)
    rising = {name for name in small if large[name] >= small[name]}
    assert rising == {DYNAMIC}
    assert max(large[TENSOR], large[AUTOGRAD]) <= 1.15 and min(large.values()) < 1
    far = {name for name in large if large[name] > 1.2}
    session = "advanced/tf_two_layer_net.py"
    assert far == {OPTIM, DDP, DOUBLE, DYNAMIC, session}


@pytest.mark.parametrize("name", everything())
def test_loop_is_timed_with_weights_that_do_not_move(name, monkeypatch):
    """Each step has the loss of the one before; what cannot run here is looked at."""
    text = everything()[name]
    code = benchmark.prepared(text.replace(*WITHOUT_CPP), 7)
    unparsed = ast.unparse(code)
    assert len(re.findall(r"^ *measure\(", unparsed, re.MULTILINE)) == 1
    if "matrix products" not in name and "the same" not in name:
        assert len(re.findall(r"learning_rate = 1e-30|lr=1e-30", unparsed)) == 1
    if re.search(r"import jax|import tensorflow|torch\.distributed", text):
        return
    found = []

    def measure(body, variables):
        assert variables["H"] == 7 and "print" not in body
        variables |= {"t": 1, "torch": torch}
        for _ in range(3):
            torch.manual_seed(0)
            random.seed(0)
            exec(body, variables)  # noqa: S102
            found.append(torch.as_tensor(variables.get("loss", 0)).item())

    monkeypatch.setattr(sys, "argv", [name])
    variables = {"__name__": "", "measure": measure, "torch": torch}
    exec(compile(code, name, "exec"), variables)  # noqa: S102
    assert found[0] == found[1] == found[2]


@pytest.fixture
def quick(monkeypatch):
    """Processes that need not import torch, and few steps in each turn."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(benchmark, "SECONDS", 1e-3)
    if forked.CAN_FORK:
        monkeypatch.setattr(benchmark, "CONTEXT", forked.SERVER)


def test_ratios_are_those_of_the_times(quick):
    """Ten times the work takes ten times as long, or thrice on a busy machine."""
    once = benchmark.HEAD + benchmark.FLOOR
    loop = "for t in range(1, args.steps + 1):\n"
    ten = once.replace(loop, loop + "  for i in range(10):\n")
    assert ten != once
    floor, ratios = benchmark.measure({FLOOR: once, "ten": ten}, 10, 1)
    assert floor > 0 and ratios[FLOOR] == 1 and ratios["ten"] > 3


def test_run(quick, monkeypatch, capsys, tmp_path):
    file = tmp_path / "new.png"
    argv = ["benchmark", NUMPY, "--sizes", "10", "20", "--plot", str(file)]
    monkeypatch.setattr(sys, "argv", argv)
    benchmark.main()
    head, floor, (name, *cells) = table(capsys.readouterr().out)
    cores = os.cpu_count()
    assert head[1:3] == ["H = 10, 1 thread", "H = 20, 1 thread"]
    assert head[3].startswith(f"H = 10, {cores} thread")
    assert floor[0] == FLOOR
    assert all(re.fullmatch(r"1 \(\d+\.\d\d ms\)", cell) for cell in floor[1:])
    # On a busy machine a ratio can be anything, even 0.00.
    assert name == NUMPY and all(0 <= float(cell) < math.inf for cell in cells)
    with Image.open(file) as image:
        assert json.loads(image.text["Description"]) == [head, floor, [name, *cells]]


@pytest.mark.parametrize(
    "words, what",
    [
        (["nn/nothing.py"], "no such rung: 'nn/nothing.py'; there are "),
        (["--sizes", "100", "0"], "argument --sizes: must be 1 or more"),
        (
            ["--plot", "no/folder/new.png"],
            "argument --plot: must be a .png in a folder",
        ),
        (["--plot", "README.md"], "argument --plot: must be a .png in a folder"),
    ],
)
def test_wrong_option_gets_one_line_before_anything_is_measured(
    words, what, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    with pytest.raises(SystemExit) as exit:
        benchmark.main()
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert what in line
