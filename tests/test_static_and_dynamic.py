"""Python in a graph does what the README's table says, in every cell."""

import random
import re
import textwrap

import apart
import pytest
import torch
from collection import TENSORFLOW, skip_if_missing, source
from python_in_graphs import (
    COLUMNS,
    WAYS,
    cell,
    collatz,
    collatz_in_tensorflow,
    scan_in_tensorflow,
)
from readme import README, blocks

TEXT = README.read_text(encoding="utf-8")


def table():
    """Return {(way, column): words} for the cells of the README's table."""
    lines = re.findall(r"^\| ?(.*) \|$", TEXT, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    (head,) = [row for row in rows if set(COLUMNS) <= set(row)]
    return {
        (row[0], column): words
        for row in rows
        if row[0] in WAYS
        for column, words in zip(head[1:], row[1:], strict=True)
    }


CELLS = [(way, column) for way in WAYS for column in COLUMNS]


def test_the_table_has_these_cells_and_no_others():
    assert sorted(table()) == sorted(CELLS)


@pytest.mark.parametrize("way, column", CELLS)
def test_cell_of_the_table(way, column, capfd):
    if "tensorflow" in WAYS[way].__name__:
        skip_if_missing(TENSORFLOW)
        found = apart.call(cell, way, column)
    else:
        found = cell(way, column)
    assert table()[way, column] == found


SCRIPT = "advanced/static_and_dynamic.py"


@pytest.mark.parametrize("command", [(SCRIPT,)], ids=" ".join)
def test_export_keeps_what_python_drew_and_follows_what_the_graph_says(run):
    shown = {}
    for line in run.stdout.splitlines():
        name, way, found, graphs = re.fullmatch(
            r"(\w*) +(eager|torch\.\w+) +(.+?)(?:  graphs (\d))?", line
        ).groups()
        network = name or network  # noqa: F821
        shown[network, way] = found, graphs and int(graphs)

    randint = random.Random(0).randint
    drawn = [str(randint(0, 3)) for _ in range(5)]
    assert len(set(drawn)) == 3
    for network in ("DrawInPython", "DrawInGraph", "IfInPython", "IfInGraph"):
        assert shown[network, "torch.compile"][0] == shown[network, "eager"][0]
    assert shown["DrawInPython", "torch.compile"] == (" ".join(drawn), 3)
    assert len(set(shown["DrawInPython", "torch.export"][0].split())) == 1
    assert shown["IfInPython", "torch.compile"] == ("1 0 1 1 0", 3)
    assert shown["IfInPython", "torch.export"][0] == "GuardOnDataDependentSymNode"
    for network in ("DrawInGraph", "IfInGraph"):
        eager, _ = shown[network, "eager"]
        assert len(set(eager.split())) > 1
        assert shown[network, "torch.compile"] == (eager, 1)
        assert shown[network, "torch.export"] == (eager, None)


@pytest.mark.parametrize("k", [1, 7, 27])
def test_while_loop_takes_as_many_steps_as_python(k):
    skip_if_missing(TENSORFLOW)
    assert apart.call(collatz_in_tensorflow, k) == collatz(k)


@pytest.fixture
def states():
    """Inputs (5, 2) and all states of h = tanh(h + x), from 0 on."""
    xs = torch.linspace(-1, 1, 10).view(5, 2)
    h, states = torch.zeros(2), []
    for x in xs:
        h = (h + x).tanh()
        states.append(h)
    return xs, torch.stack(states)


def test_scan_is_a_loop_that_keeps_its_states(states):
    from torch._higher_order_ops import scan

    def step(h, x):
        h = (h + x).tanh()
        return h, h.clone()

    xs, expected = states
    last, hs = scan(step, torch.zeros(2), xs)
    torch.testing.assert_close(hs, expected)
    torch.testing.assert_close(last, expected[-1])


def test_scan_of_tensorflow_is_a_loop_that_keeps_its_states(states):
    skip_if_missing(TENSORFLOW)
    xs, expected = states
    found = torch.from_numpy(apart.call(scan_in_tensorflow, xs.numpy()))
    torch.testing.assert_close(found, expected)


def test_the_loop_in_the_readme_is_that_of_the_script():
    (shown,) = [b for b in blocks(TEXT, "python") if b.startswith("def forward")]
    assert textwrap.indent(shown, "    ") in source(SCRIPT)
