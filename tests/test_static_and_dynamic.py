"""Python in a graph does what advanced/README.md says, in every cell of its tables."""

import random
import re

import apart
import pages
import pytest
import static_and_dynamic as script
import torch
from collection import TENSORFLOW, skip_if_missing
from python_in_graphs import (
    COLUMNS,
    WAYS,
    cell,
    collatz,
    collatz_in_tensorflow,
    own_random_numbers,
    running_totals_in_tensorflow,
)

PAGE = "advanced/README.md"


def ask(function, way, *args):
    """Call the function here, or where TensorFlow is if the way needs it."""
    if "tensorflow" in WAYS[way].__name__:
        skip_if_missing(TENSORFLOW)
        return apart.call(function, way, *args)
    return function(way, *args)


def tables():
    """Return {(way, column): words} for the tables of the page with such columns."""
    cells = {}
    for table in re.findall(r"(?:^\|.*\|\n)+", pages.text(PAGE), re.MULTILINE):
        rows = [
            [part.strip() for part in line.split("|")] for line in table.split("\n")
        ]
        head = rows[0]
        for row in rows[2:]:
            for column, words in zip(head, row):
                if column in COLUMNS:
                    cells[row[1], column] = words
    return cells


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("way", WAYS)
def test_cell_of_the_tables(way, column):
    assert tables()[way, column] == ask(cell, way, column), f"see the table in {PAGE}"


@pytest.mark.parametrize("way", WAYS)
def test_random_numbers_of_the_library_are_new_in_every_call(way):
    assert ask(own_random_numbers, way) == "new"


INPUTS = [torch.full((3,), value) for value in (1.0, -1.0, 1.0, 1.0, -1.0)]


def drawn_by_python():
    generator = random.Random(0)
    return [generator.randint(1, 4) for _ in INPUTS]


def drawn_by_torch():
    torch.manual_seed(0)
    return [torch.randint(1, 5, ()).item() for _ in INPUTS]


@pytest.mark.parametrize(
    "network, expected, graphs",
    [
        (script.DrawInPython, drawn_by_python(), 3),
        (script.DrawInGraph, drawn_by_torch(), 1),
        (script.IfInPython, [1, 0, 1, 1, 0], 2),
        (script.IfInGraph, [1, 0, 1, 1, 0], 1),
    ],
)
def test_torch_compile_does_what_eager_pytorch_does(network, expected, graphs):
    assert script.uses(network(), INPUTS) == expected
    compiled, made = script.compiled(network())
    assert script.uses(compiled, INPUTS) == expected
    assert len(made) == graphs


def test_torch_export_keeps_the_number_that_python_drew():
    assert len(set(drawn_by_python())) == 3
    exported = script.exported(script.DrawInPython(), INPUTS[0])
    assert len(set(script.uses(exported, INPUTS))) == 1


def test_torch_export_refuses_an_if_on_the_data():
    with pytest.raises(RuntimeError, match="data-dependent"):
        script.exported(script.IfInPython(), INPUTS[0])


@pytest.mark.parametrize("network", [script.DrawInGraph, script.IfInGraph])
def test_torch_export_keeps_the_operations_that_decide(network):
    exported = script.exported(network(), INPUTS[0])
    assert script.uses(exported, INPUTS) == script.uses(network(), INPUTS)


@pytest.mark.parametrize("k", [1, 7, 27])
def test_tf_function_makes_operations_of_while_and_if(k):
    skip_if_missing(TENSORFLOW)
    steps, operations = apart.call(collatz_in_tensorflow, k)
    assert steps == collatz(k, 0)
    assert {"StatelessWhile", "StatelessIf"} <= operations


def test_tf_scan_is_a_loop_that_keeps_its_states():
    skip_if_missing(TENSORFLOW)
    assert apart.call(running_totals_in_tensorflow, [1, 2, 3, 4]) == [1, 3, 6, 10]
