"""Every picture on a page is drawn by a script, and every --plot draws one.

That its numbers are those printed is tested with each script.
"""

import re

import pages
import pytest
from collection import ROOT, SCRIPTS, options, run_in, short
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


@pytest.mark.parametrize("script", PLOTTING)
def test_plot_draws(script, tmp_path):
    done = run_in(tmp_path, *short(script), "--plot", "new picture.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.name for file in tmp_path.iterdir()] == ["new picture.png"]
    with Image.open(tmp_path / "new picture.png") as image:
        assert image.format == "PNG" and image.width >= 1000


@pytest.mark.parametrize("script", PLOTTING)
def test_plot_that_cannot_be_written_is_told_in_one_line(script, tmp_path):
    done = run_in(tmp_path, *short(script), "--plot", "no/folder/new.png")
    assert done.returncode == 2
    assert "no/folder/new.png" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
