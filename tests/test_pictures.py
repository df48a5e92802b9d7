"""Each picture of the README shows what its script draws, by its numbers."""

import json
import math
import re
from unittest import mock

import numpy as np
import pytest
from collection import NUMPY, ROOT, execute, options, source
from matplotlib.figure import Figure
from PIL import Image
from readme import README, rows

TEXT = README.read_text(encoding="utf-8")
PICTURES = {
    path: " ".join(words.split())
    for words, path in re.findall(r"!\[([^]]*)\]\((\S+?)\)", TEXT)
}
each_picture = pytest.mark.parametrize("picture", PICTURES)
# Made of times, which no second drawing repeats.
MEASURED = {"tensor/gpu_speedup.png", "tests/benchmark_ladder.png"}


def script(picture):
    return picture.removesuffix(".png") + ".py"


def description(file):
    """Return the text that a script has put into its picture."""
    with Image.open(file) as image:
        return image.text["Description"]


def lines(figure):
    """Return {label: {x: y}} for the lines that the legend names."""
    return {
        line.get_label(): dict(
            zip(*map(np.ndarray.tolist, line.get_data()), strict=True)
        )
        for line in figure.axes[0].lines
        if not line.get_label().startswith("_")
    }


def ladder(figure):
    return {
        name: {str(step): loss for step, loss in curve.items()}
        for name, curve in lines(figure).items()
    }


def race(figure):
    return {name: list(curve.values())[9::10] for name, curve in lines(figure).items()}


def table(figure):
    """Return the cells as they are written, once they agree with their colours."""
    axes = figure.axes[0]
    (image,) = axes.images
    losses = image.get_array().filled(np.nan)
    names = [label.get_text() for label in axes.get_yticklabels()]
    cells = {name: [""] * losses.shape[1] for name in names}
    for text in axes.texts:
        column, row = text.get_position()
        cells[names[row]][column] = cell = text.get_text()
        if cell.startswith("step"):
            assert np.isnan(losses[row, column])
        elif cell == "<1e-6":
            assert losses[row, column] < 1e-6
        else:
            assert f"{losses[row, column]:.1e}" == cell
    return cells


def worst(figure):
    return [axes.images[0].get_array().max(1).tolist() for axes in figure.axes[:2]]


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


# How a picture is read, how its text is, and how far two drawings may be apart.
READERS = {
    "tensor/draw_ladder.png": (ladder, json.loads, 16 * 2**-23),
    "nn/initialization.png": (table, json.loads, 0),
    "optim/compare_optimizers.png": (race, json.loads, 0.03),  # bfloat16 is in it
    "rnn/variable_lengths.png": (worst, json.loads, 1e-3),
    "data/train_cnn.png": (titles, str.split, 2),  # of 16 may be another digit
}
# Three epochs do for the sixteen digits shown.
OPTIONS = {"data/train_cnn.png": ["--epochs", "3"]}
# The search for the best learning rates takes most of the time; the README has them.
RATES = dict(re.findall(r"^(\w+) +lr (\S+)  there in", TEXT, re.MULTILINE))
BEST = {name: round(2 * math.log10(float(rate))) for name, rate in RATES.items()}
EDITS = {"optim/compare_optimizers.png": [("range(-6, 2)", f"[{BEST}[name]]")]}


def distance(one, other):
    """Return how far two descriptions are apart.

    For words it is the number of those that differ. For losses and errors it is that of
    the roots, in units of the largest, as in the tests of the rungs.
    """
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one[0], (list, dict)):
        return max(map(distance, one, other))
    if isinstance(one[0], str):
        return sum(a != b for a, b in zip(one, other, strict=True))
    return np.abs(np.sqrt(one) - np.sqrt(other)).max() / np.sqrt(one).max()


def redraw(picture, file):
    """Draw a picture into a file and return the figure."""
    drawn = []

    def keep(figure, *args, **options):
        drawn.append(figure)
        return savefig(figure, *args, **options)

    savefig = Figure.savefig
    argv = ["--plot", str(file), *OPTIONS.get(picture, [])]
    with mock.patch.object(Figure, "savefig", keep):
        execute(script(picture), *EDITS.get(picture, []), argv=argv)
    (figure,) = drawn
    return figure


@pytest.mark.parametrize("picture", READERS)
def test_picture_is_what_its_script_draws(picture, tmp_path):
    """The text in the file is what the figure shows, and the same as in a new one."""
    read, parse, bound = READERS[picture]
    file = tmp_path / "new.png"
    figure = redraw(picture, file)
    assert read(figure) == parse(description(file))
    assert distance(read(figure), parse(description(ROOT / picture))) <= bound


def test_every_picture_is_redrawn_or_made_of_times():
    assert set(PICTURES) == set(READERS) | MEASURED


def test_ladder_has_all_rungs_that_need_nothing_special():
    special = r"import tensorflow|torch\.distributed|torch\.compile"
    rungs = {NUMPY, *rows(TEXT)}
    shown = json.loads(description(ROOT / "tensor/draw_ladder.png"))
    assert set(shown) == {
        rung for rung in rungs if not re.search(special, source(rung))
    }


@each_picture
def test_picture_stands_beside_the_script_that_draws_it(picture):
    assert "--plot" in options(script(picture))


@each_picture
def test_picture_is_light_and_has_a_paper_of_its_own(picture):
    """On a dark page, too, what is drawn in black is to be seen."""
    assert (ROOT / picture).stat().st_size < 80_000
    with Image.open(ROOT / picture) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert image.format == "PNG" and image.width <= 800
    assert (pixels[..., 3] == 255).all()
    assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()


@each_picture
def test_picture_is_told_in_words(picture):
    assert len(PICTURES[picture]) > 100


@pytest.mark.parametrize("which", [0, 1])
def test_losses_apart_are_noticed(which):
    """A distance is that of the worst of the curves."""
    one = {"a": [4.0, 1.0], "b": [9.0, 0.0]}
    other = {"a": [4.0, 1.0], "b": [9.0, 0.0]}
    assert distance(one, other) == 0
    other["ab"[which]][1] += 3
    assert distance(one, other) > 0.1
