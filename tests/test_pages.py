"""What the pages show is what there is: code, outputs, sessions, counts, links."""

import re

import pages
import pytest
from collection import FAMILY_A, ROOT, SCRIPTS, expected_status, run
from pages import FENCE, PAGES

each_page = pytest.mark.parametrize("page", PAGES)


@each_page
def test_code_shown_is_the_file(page):
    advice = f"{page} shows code that has changed: python tests/update_readme.py {page}"
    for match in FENCE.finditer(pages.text(page)):
        if match["kind"] == "python":
            assert pages.renewed_code(page, match["body"]) == match["body"], advice


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_linked_from_its_chapter(script):
    folder = script.partition("/")[0]
    targets = [
        pages.target(page, link)[0]
        for page in PAGES
        if page.startswith(f"{folder}/")
        for link in pages.links(page)
    ]
    advice = f"{script} is on no page: link it from {folder}/README.md"
    assert script in targets, advice


COMMANDS = sorted({output.command for output in pages.outputs()})


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_output_shown_is_what_the_script_prints(command):
    shown = [output for output in pages.outputs() if output.command == command]
    missing = pages.missing(pages.needed(mark for o in shown for mark in o.marks))
    if missing:
        pytest.skip(f"{' '.join(command)} needs {', '.join(missing)}: not here")
    done = run(*command)
    assert (done.returncode, done.stderr) == (expected_status(command[0]), "")
    for output in shown:
        difference = pages.first_difference(output.shown, done.stdout, output.marks)
        assert difference is None, (
            f"{output.page}: {difference}. If the script is right: "
            f"python tests/update_readme.py {command[0]}"
        )


@pytest.mark.parametrize(
    "shown, real, marks, good",
    [
        ("loss 2.5020e+07\n", "loss 2.5020e+07\n", (), True),
        ("loss 2.5020e+07\n", "loss 2.5021e+07\n", (), True),
        ("loss 2.5020e+07\n", "loss 2.6e+07\n", (), False),
        ("loss 2.5020e+07\nloss 1.1e-4\n", "loss 2.5020e+07\nloss 3.1e-4\n", (), True),
        ("loss 1.0e+02\nloss 1.1e-1\n", "loss 1.0e+02\nloss 3.1e-1\n", (), False),
        ("step 50\n", "step 51\n", (), False),
        ("a\nb\n", "a\n", (), False),
        ("a\n", "a\nb\n", (), False),
        ("a\n...\n", "a\nb\nc\n", (), True),
        ("a\n...\nc\n", "a\nb\nc\n", (), True),
        ("a\n...\nc\n", "a\nb\nd\n", (), False),
        ("a\nb\n", "b\na\n", ("in any order",), True),
        ("speed 10.5\n", "speed 990.1\n", ("measured",), True),
        ("speed 10.5\n", "slow 990.1\n", ("measured",), False),
        ("bits 2.00\n", "bits 2.08\n", ("within 5%",), True),
        ("bits 2.00\n", "bits 2.18\n", ("within 5%",), False),
        ("step 50\n", "step 51\n", ("within 5%",), False),
        ("by 50%\n", "by 51%\n", ("within 5%",), True),
        ("SGD 1 50\n", "SGD 1 51\n", ("within 5%",), True),
        ("SGD 1 50\n", "SGD 1 51\n", (), False),
    ],
)
def test_outputs_are_compared_as_pages_say(shown, real, marks, good):
    assert (pages.first_difference(shown, real, marks) is None) == good


@each_page
def test_marks_are_known(page):
    known = re.compile(r"needs \w+|python \S+\.py.*|measured|within \d+%|in any order")
    for match in FENCE.finditer(pages.text(page)):
        for mark in pages.split_marks(match):
            assert known.fullmatch(mark), f"{page}: what {mark!r} means: tests/pages.py"
    assert pages.text(page).count("<!--") == sum(
        match["marks"] is not None for match in FENCE.finditer(pages.text(page))
    ), f"{page}: a comment that is not directly above a block"


@each_page
def test_no_merge_is_left_half_done(page):
    found = re.search(r"^(<<<<<<<|>>>>>>>) .*$", pages.text(page), re.MULTILINE)
    assert not found, f"{page}: choose between the two sides of {found[0]!r}"


@each_page
def test_every_prompt_is_in_a_session_that_runs(page):
    """The sessions are run by conftest.py; those for other machines are only read."""
    bodies = [s[1] for each in pages.sections(page) for s in each.sessions]
    bodies = dict.fromkeys(bodies)  # those above the first heading are in all sections
    count = sum(body.count("\n>>> ") + 1 for body in bodies)
    assert pages.text(page).count("\n>>> ") == count, (
        f"{page}: a block with >>> must begin with it, and be marked as python"
    )
    for section in pages.sections(page):
        for test in pages.doctests(section):
            for example in test.examples:
                compile(example.source, section.title, "single")


@each_page
def test_links_resolve(page):
    for link in pages.links(page):
        if link.startswith("https://"):
            continue
        path, anchor = pages.target(page, link)
        assert (ROOT / path).exists(), f"{page} links {link}, which is not there"
        if anchor:
            assert pages.anchors(path).count(anchor) == 1, (
                f"{page} links {link}, but {path} has no such heading, or two of them"
            )


@pytest.mark.parametrize("script", pages.ladder())
def test_count_of_changed_lines_is_right(script):
    count, neighbour = pages.ladder()[script]
    if neighbour:
        advice = (
            "the ladder counts other lines: python tests/update_readme.py README.md"
        )
        assert count == pages.changed(script, neighbour), advice


def test_every_rung_is_in_the_table():
    rungs = {
        s for s in SCRIPTS if re.search("two_layer_net|dynamic_net|/attention_", s)
    }
    missing = rungs - set(pages.ladder())
    assert not missing, f"add to the tables of the ladder in README.md: {missing}"
    assert next(iter(pages.ladder())) == FAMILY_A[0]


# Renewal


@pytest.fixture
def script(monkeypatch):
    """The text of a script that is shown on a page, as a list: [text]."""
    written = [
        '"""Lesson."""\n\nimport torch\n\nfor t in range(3):\n    x = t\n    y = x\n'
    ]
    monkeypatch.setattr(pages, "source", lambda name: written[0])
    monkeypatch.setattr(pages, "SCRIPTS", ["nn/a_script.py"])
    return written


def test_an_excerpt_is_found_again_by_its_first_and_last_line(script):
    body = "# In file nn/a_script.py\nx = t\ny = x\n"
    assert pages.renewed_code("nn/README.md", body) == body
    script[0] = script[0].replace("    y", "    z = 2 * x\n    y")
    new = pages.renewed_code("nn/README.md", body)
    assert new == "# In file nn/a_script.py\nx = t\nz = 2 * x\ny = x\n"


@pytest.mark.parametrize("line", ["    x = t\n", "    y = x\n"])
def test_an_excerpt_that_is_lost_is_told(script, line):
    script[0] = script[0].replace(line, "    pass\n")
    with pytest.raises(pages.PageError, match=f"nn/README.md.*{line.strip()}"):
        pages.renewed_code("nn/README.md", "# In file nn/a_script.py\nx = t\ny = x\n")


def test_a_whole_listing_is_renewed(script):
    body = "# Code in file nn/a_script.py\nimport numpy\n"
    new = pages.renewed_code("nn/README.md", body)
    assert new == body.replace("import numpy\n", script[0].partition("\n\n")[2])


def test_measured_outputs_are_renewed_only_when_their_script_is_named(monkeypatch):
    page = "nn/README.md"
    shown = "```console\n$ python nn/two_layer_net_nn.py\nold\n```\n"
    monkeypatch.setattr(
        pages, "text", lambda _: shown + "\n<!-- measured -->\n" + shown
    )
    monkeypatch.setattr(pages, "run", lambda *_: type("Done", (), {"stdout": "new\n"}))
    assert pages.renewed(page).count("new") == 0
    assert pages.renewed(page, ["README.md"]).count("new") == 0
    assert pages.renewed(page, [page]).count("new") == 1
    assert pages.renewed(page, ["nn/two_layer_net_nn.py"]).count("new") == 2
