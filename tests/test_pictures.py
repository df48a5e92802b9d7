"""Each picture of the README shows what its script draws, by its numbers."""

import json
import math
import re
import runpy
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from collection import NUMPY, ROOT, SCRIPTS, execute, options, outcome, source
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


# How a picture is read, and how its text is.
READERS = {
    "tensor/draw_ladder.png": (ladder, json.loads),
    "nn/initialization.png": (table, json.loads),
    "optim/compare_optimizers.png": (race, json.loads),
    "rnn/variable_lengths.png": (worst, json.loads),
    "data/train_cnn.png": (titles, str.split),
}
# Three epochs do for the sixteen digits shown.
OPTIONS = {"data/train_cnn.png": ["--epochs", "3"]}
# The search for the best learning rates takes most of the time; the README has them.
RATES = dict(re.findall(r"^(\w+) +lr (\S+)  there in", TEXT, re.MULTILINE))
BEST = {name: round(2 * math.log10(float(rate))) for name, rate in RATES.items()}
EDITS = {"optim/compare_optimizers.png": [("range(-6, 2)", f"[{BEST}[name]]")]}


def assert_seen_the_same(losses, others, floor=0.0):
    """Five percent are less than a point in a picture, whose lines are wider than that.

    Rounding decided 1.1 percent at most, on three kinds of processors. What lies below
    the floor is not looked at.
    """
    ours, theirs = np.maximum([list(losses), list(others)], floor)
    np.testing.assert_allclose(ours, theirs, rtol=0.05)


def same_ladder(figure, other):
    assert list(figure) == list(other)
    for name, curve in figure.items():
        assert list(curve) == list(other[name])
        assert_seen_the_same(curve.values(), other[name].values())


def same_table(figure, other):
    """Two digits hide the rounding."""
    assert figure == other


def same_race(figure, other):
    """Small losses are a matter of rounding, which decides where Rprop turns back.

    Muon rounds to bfloat16, with 8 binary digits. So its losses end as noise, between
    0.004 and 0.03 as measured. That they do end below 0.05 is all that is compared.
    """
    assert list(figure) == list(other)
    for name, losses in figure.items():
        assert_seen_the_same(losses, other[name], 0.05 if name == "Muon" else 1e-3)


def same_errors(figure, other):
    """What agrees to 1e-6 is the same in the script's table, and so it is here."""
    np.testing.assert_allclose(figure, other, rtol=0, atol=1e-6)


def same_titles(figure, other):
    """Of 16 digits, two that are hard to read may be taken for others."""
    assert sum(a != b for a, b in zip(figure, other, strict=True)) <= 2


SAME = {
    ladder: same_ladder,
    table: same_table,
    race: same_race,
    worst: same_errors,
    titles: same_titles,
}


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
    read, parse = READERS[picture]
    file = tmp_path / "new.png"
    figure = redraw(picture, file)
    assert read(figure) == parse(description(file))
    SAME[read](read(figure), parse(description(ROOT / picture)))


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


def swap(text):
    """Exchange the first and the last of a list, or what two names stand for."""
    first, *_, last = text if isinstance(text, dict) else range(len(text))
    text[first], text[last] = text[last], text[first]


# What is spoilt in the text of a picture.
CHANGES = {
    "rungs": ("tensor/draw_ladder.png", lambda text: swap(text)),
    "steps": ("tensor/draw_ladder.png", lambda text: swap(text[NUMPY])),
    "rows": ("nn/initialization.png", lambda text: swap(text)),
    "optimizers": ("optim/compare_optimizers.png", lambda text: swap(text)),
    "Muon": ("optim/compare_optimizers.png", lambda text: swap(text["Muon"])),
    "directions": ("rnn/variable_lengths.png", lambda text: swap(text)),
    "digits": ("data/train_cnn.png", lambda text: text.sort()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_noticed(change):
    picture, spoil = CHANGES[change]
    read, parse = READERS[picture]
    text, spoilt = (parse(description(ROOT / picture)) for _ in range(2))
    SAME[read](text, text)
    spoil(spoilt)
    with pytest.raises(AssertionError):
        SAME[read](spoilt, text)


@pytest.mark.parametrize("name", ["SGD", "Muon"])
def test_a_tenth_more_is_seen(name):
    text = json.loads(description(ROOT / "optim/compare_optimizers.png"))
    more = text | {name: [1.1 * text[name][0], *text[name][1:]]}
    with pytest.raises(AssertionError):
        same_race(more, text)


DRAWING = [script for script in SCRIPTS if "--plot" in options(script)]


@pytest.mark.parametrize("where", ["missing/a.png", "notes.txt/a.png", "folder.png"])
@pytest.mark.parametrize("script", DRAWING)
def test_a_place_for_no_picture_is_refused_at_once(script, where, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "folder.png").mkdir()
    code, out, err = outcome(script, argv=["--plot", str(tmp_path / where)])
    (line,) = err.splitlines()
    assert (code, out) == (2, "")
    assert "error: " in line and "in a folder that" in line
    assert len(list(tmp_path.rglob("*"))) == 2


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("script", DRAWING)
def test_a_full_disk_gets_one_line(script, tmp_path, monkeypatch):
    """A link is written to, and stays a link."""

    def rung(path):
        print("step    1  loss 4.0\nstep  200  loss 1.0")

    monkeypatch.setattr(runpy, "run_path", rung)
    file = tmp_path / "full.png"
    file.symlink_to(FULL)
    argv = ["--plot", str(file)]
    for option in ("--steps", "--epochs"):
        argv += [option, "1"] * (option in options(script))
    edits = EDITS.get(script.replace(".py", ".png"), [])
    code, _, err = outcome(script, *edits, argv=argv)
    *_, line = err.splitlines()
    assert code == 2
    assert f"error: cannot write {file}: " in line
    assert [path.is_symlink() for path in tmp_path.iterdir()] == [True]
