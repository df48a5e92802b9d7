"""The benchmark times every rung, each by its own loop, and the page has them all."""

import re
import sys

import benchmark_ladder as benchmark
import pages
import pytest
import torch
from collection import NUMPY, WITHOUT_CPP


def names_in(page):
    """Return the names of the rows of every table "a step of" on a page."""
    tables = re.findall(r"^\| a step of \|.*\n\|.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    return [re.findall(r"^\| (.+?) \|", table, re.MULTILINE) for table in tables]


def test_the_table_on_the_page_has_every_rung():
    (names,) = names_in(pages.text("tests/README.md"))
    rungs = benchmark.two_layer_nets()
    assert [name for name in names if name in rungs] == rungs, (
        "tests/README.md: the table of what each rung costs is not that of the ladder. "
        "Run python tests/benchmark_ladder.py on a quiet machine"
    )


@pytest.mark.parametrize("name", benchmark.sources())
def test_weights_do_not_move_while_the_loop_is_timed(name):
    """Each step has the loss of the one before, so that no number becomes nan."""
    text = benchmark.sources()[name].replace(*WITHOUT_CPP)
    code = benchmark.prepared(text, 7)
    assert len(re.findall(r"^ *measure\(", code, re.MULTILINE)) == 1
    if name in benchmark.PRODUCTS:
        return
    assert len(re.findall(r"learning_rate = 1e-30|lr=1e-30", code)) == 1
    if re.search(
        r"import (jax|tensorflow|triton)|load_inline|torch\.distributed|random\.", text
    ):
        return  # not in this process, or with losses that differ by design
    found = []

    def measure(body, variables):
        assert variables["H"] == 7 and "print" not in body
        for _ in range(3):
            assert benchmark.seconds(body, variables, 1) > 0
            found.append(torch.as_tensor(variables["loss"]).item())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name])
        exec(compile(code, name, "exec"), {"measure": measure})  # noqa: S102
    assert found[0] == found[1] == found[2]


def test_ratios_are_those_of_the_times():
    texts = {"b": "import torch", "a": "import numpy"} | benchmark.PRODUCTS
    times = {name: [1.0, 2.0, 4.0] for name in texts}
    times["a"] = [3.0, 6.0, 1.0]
    times["products of NumPy"] = [6.0, 2.0, 2.0]
    rows = {name: ratios for name, *ratios in benchmark.table(texts, times)}
    assert rows["b"] == [1, 1]
    assert rows["a"] == [3, 0.5]


def test_run(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(benchmark, "SECONDS_OF_A_TURN", 1e-3)
    only = {name: benchmark.PRODUCTS[name] for name in list(benchmark.PRODUCTS)[:2]}
    monkeypatch.setattr(benchmark, "PRODUCTS", only)
    monkeypatch.setattr(benchmark.os, "environ", dict(benchmark.os.environ))
    argv = ["benchmark", NUMPY, "--hidden", "10", "20", "--plot", f"{tmp_path}/a.png"]
    monkeypatch.setattr(sys, "argv", argv)
    benchmark.main()
    expected = [*only, NUMPY]
    assert names_in(capsys.readouterr().out) == [expected, expected]
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
