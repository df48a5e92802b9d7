"""Every picture on a page is drawn by a script, and every --plot draws one.

That its numbers are those printed is tested with each script.
"""

import errno
import re

import pages
import pytest
from collection import ROOT, SCRIPTS, options, outcome
from matplotlib.figure import Figure
from pages import PAGES
from PIL import Image

PICTURES = [
    (page, *found)
    for page in PAGES
    for found in re.findall(r"!\[([^]]*)\]\((\S+?)\)", pages.text(page))
]
PLOTTING = [script for script in SCRIPTS if "--plot" in options(script)]


@pytest.mark.parametrize("page, words, link", PICTURES)
def test_picture_on_a_page(page, words, link):
    picture, _ = pages.target(page, link)
    assert words, (
        f"{page}: say in the brackets of {link} what a blind reader would miss"
    )
    script = picture.removesuffix(".png") + ".py"
    assert (ROOT / script).exists() and "--plot" in options(script), (
        f"{page} shows {picture}, but no script of that name draws it with --plot"
    )
    with Image.open(ROOT / picture) as image:
        assert image.width >= 1000, (
            f"{picture} is {image.width} pixels wide, too few for a large screen: "
            "figsize=(5, 3.6), dpi=240 makes 1200"
        )


def draw_on_a_full_disk(figure, file, save=Figure.savefig):
    save(figure, file)
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("script", PLOTTING)
def test_plot_draws_and_says_in_one_line_if_it_cannot(script, tmp_path, monkeypatch):
    """The picture is drawn before the disk is full, so that one run tests both."""
    monkeypatch.setattr(Figure, "savefig", draw_on_a_full_disk)
    monkeypatch.chdir(tmp_path)
    argv = ["--plot", "new picture.png"]
    argv += ["--steps", "2"] * ("--steps" in options(script))
    argv += ["--epochs", "1"] * ("--epochs" in options(script))
    code, _, errors = outcome(script, argv=argv)
    assert code == 2
    last = errors.splitlines()[-1]
    assert "cannot write new picture.png" in last and "No space left" in last
    assert [file.name for file in tmp_path.iterdir()] == ["new picture.png"]
    with Image.open(tmp_path / "new picture.png") as image:
        assert image.format == "PNG" and image.width >= 1000
