"""Python in a graph does what advanced/README.md says, in every cell of its tables."""

import random
import subprocess
import sys

import apart
import pages
import pytest
import static_and_dynamic as script
import torch
from collection import ROOT, SECONDS, TENSORFLOW, skip_if_missing
from python_in_graphs import QUESTIONS, WAYS, answer

PAGE = "advanced/README.md"


def tables():
    """Return {(way, question): words} for the tables of the page with such columns."""
    cells, head = {}, []
    for line in pages.text(PAGE).splitlines():
        if line.startswith("| "):
            first, *rest = [part.strip() for part in line.split("|")[1:-1]]
            head = rest if first == "" else head
            cells |= {(first, question): words for question, words in zip(head, rest)}
    return {key: cells[key] for key in cells if key[0] in WAYS and key[1] in QUESTIONS}


CELLS = [(*key, words) for key, words in tables().items()]
assert len(CELLS) == 16, f"{PAGE} must have four answers to each of four questions"
# As the page says around the tables.
CELLS += [
    ("`tf.function`", "`while` on the data", "right"),
    ("`torch.compile`", "`torch.rand`", "new"),
    ("`torch.export`", "`torch.rand`", "new"),
    ("TensorFlow 1", "`tf.random.uniform`", "new"),
    ("`tf.function`", "`tf.random.uniform`", "new"),
]


@pytest.mark.parametrize("way, question, words", CELLS)
def test_cell_of_the_tables(way, question, words):
    if "tensorflow" in WAYS[way].__name__:
        skip_if_missing(TENSORFLOW)
        found = apart.call(answer, way, question)
    else:
        found = answer(way, question)
    assert found == words, f"see the table in {PAGE}"


INPUTS = [torch.full((3,), value) for value in (1.0, -1.0, 1.0, 1.0, -1.0)]
draw = random.Random(0).randint
BY_PYTHON = [draw(1, 4) for _ in INPUTS]
generator = torch.Generator().manual_seed(0)
BY_TORCH = [torch.randint(1, 5, (), generator=generator).item() for _ in INPUTS]
POSITIVE = [1, 0, 1, 1, 0]


@pytest.mark.parametrize(
    "network, uses, graphs, uses_exported",
    [
        (script.DrawInPython, BY_PYTHON, 3, BY_PYTHON[:1] * 5),
        (script.DrawInGraph, BY_TORCH, 1, BY_TORCH),
        (script.IfInPython, POSITIVE, 2, None),
        (script.IfInGraph, POSITIVE, 1, POSITIVE),
    ],
)
def test_torch_compile_is_right_and_torch_export_may_freeze_or_refuse(
    network, uses, graphs, uses_exported
):
    assert script.uses(network(), INPUTS) == uses
    compiled, made = script.compiled(network())
    assert script.uses(compiled, INPUTS) == uses
    assert len(made) == graphs
    if uses_exported is None:
        with pytest.raises(RuntimeError, match="data-dependent"):
            script.exported(network(), INPUTS[0])
    else:
        random.seed(0)
        exported = script.exported(network(), INPUTS[0])
        assert script.uses(exported, INPUTS) == uses_exported


@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_without_assertions_it_says_so(option):
    """Python leaves them out, and everything would seem to hold."""
    path = ROOT / "advanced/static_and_dynamic.py"
    command = [sys.executable, option, path]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 2
    assert "without -O" in done.stderr.splitlines()[-1]
