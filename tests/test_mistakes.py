"""Every mistake is one, its fix is one, and a reader finds both by the symptom.

The sessions of the pages are run by conftest.py. Here the lines marked "# wrong" and
"# right" are exchanged, in a session or in the script that a lesson shows: if that
changes nothing of what is printed, the lesson teaches nothing.
"""

import random
import re
import subprocess

import numpy as np
import pages
import pytest
import torch
from collection import FOLDERS, SECONDS, run_in, source
from pages import FENCE, MISTAKES, Section

LESSONS = [lesson for page in MISTAKES for lesson in pages.sections(page)]
IN_SESSIONS = [lesson for lesson in LESSONS if lesson.sessions and not lesson.needs]
MARK = re.compile(r"  # (wrong|right)\b")


def title(value):
    return value.title if isinstance(value, Section) else None


def scripts(lesson):
    """Return the scripts of which a lesson shows an excerpt."""
    shown = (pages.code_shown(match["body"]) for match in FENCE.finditer(lesson.text))
    return sorted({code[0] for code in shown if code})


IN_SCRIPTS = [(lesson, script) for lesson in LESSONS for script in scripts(lesson)]


def partners(marks):
    """Return {place: the place to exchange it with}, given the mark of each place.

    The first line marked wrong is exchanged with the first marked right, and so on.
    """
    wrong = [place for place, mark in marks.items() if mark == "wrong"]
    right = [place for place, mark in marks.items() if mark == "right"]
    assert len(wrong) == len(right) > 0, (
        "mark the lines that make the mistake with '# wrong', and as many lines that "
        f"mend it with '# right': here are {len(wrong)} and {len(right)}"
    )
    return dict(zip(wrong + right, right + wrong))


def marks(lines):
    found = {place: MARK.search(line) for place, line in enumerate(lines)}
    return {place: match[1] for place, match in found.items() if match}


@pytest.mark.parametrize("lesson", IN_SESSIONS, ids=title)
def test_wrong_and_right_lines_of_a_session_differ(lesson):
    tests = pages.doctests(lesson)
    examples = [example for test in tests for example in test.examples]
    sources = [example.source for example in examples]
    for place, other in partners(marks(sources)).items():
        examples[place].source = sources[other]
    report = pages.failures(tests)
    assert report, "with wrong and right exchanged, the session prints the same"
    assert "NameError" not in report, (
        "the right line uses a variable that is made after the wrong one: make it first"
    )


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("lesson", IN_SESSIONS, ids=title)
def test_session_prints_the_same_whatever_came_before(lesson, seed):
    """Random numbers of which it shows any are seeded in the lesson."""
    for generator in torch.manual_seed, random.seed, np.random.seed:
        generator(seed)
    assert not pages.failures(pages.doctests(lesson))


@pytest.mark.parametrize("lesson, script", IN_SCRIPTS, ids=title)
def test_wrong_and_right_lines_of_a_script_differ(lesson, script, tmp_path):
    shown = [
        output
        for output in pages.outputs()
        if output.command[0] == script and output.shown in lesson.text
    ]
    assert shown, f"{lesson.title}: show what {script} prints"
    missing = pages.missing(pages.needed(mark for o in shown for mark in o.marks))
    if missing:
        pytest.skip(f"{script} needs {', '.join(missing)}: not here")
    lines = source(script).splitlines()
    exchanged = list(lines)
    for place, other in partners(marks(lines)).items():
        indent = len(lines[place]) - len(lines[place].lstrip())
        exchanged[place] = " " * indent + lines[other].lstrip()
    (tmp_path / "exchanged_lines.py").write_text("\n".join(exchanged), encoding="utf-8")
    for output in shown:
        command = tmp_path / "exchanged_lines.py", *output.command[1:]
        try:
            done = run_in(tmp_path, *command)
        except subprocess.TimeoutExpired:
            pytest.fail(f"exchanged, {script} ran for {SECONDS} seconds: let it end")
        assert "NameError" not in done.stderr, done.stderr
        same = pages.first_difference(output.shown, done.stdout, output.marks) is None
        assert done.returncode or not same, "exchanged, the script prints the same"


# Found by the symptom


def test_every_lesson_has_a_session_or_a_script():
    for lesson in LESSONS:
        assert ">>> " in lesson.text or scripts(lesson), (
            f"{lesson.page}: {lesson.title!r} has no session and shows no script"
        )


@pytest.mark.parametrize("page", MISTAKES)
def test_silent_mistakes_come_first(page):
    """A heading in backticks is a message."""
    loud = [lesson.title.startswith("`") for lesson in pages.sections(page)]
    assert loud == sorted(loud) and not loud[0], f"{page}: a message, then a symptom"


@pytest.mark.parametrize("page", MISTAKES)
def test_heading_quotes_what_is_printed(page):
    """Word for word, in the lesson below it."""
    for lesson in pages.sections(page):
        heading, _, below = lesson.text.partition("\n")
        for quoted in re.findall("`` (.+?) ``|`([^`]+)`", heading):
            words = " ".join("".join(quoted).split())
            assert words in " ".join(below.split()), (
                f"{page}: {words!r} stands in a heading, but not in the lesson below it"
            )


def test_headings_are_unique():
    titles = [lesson.title.lower() for lesson in LESSONS if not lesson.needs]
    assert sorted(set(titles)) == sorted(titles)


def test_every_lesson_is_linked_from_troubleshooting_once():
    text = pages.text("README.md")
    start = text.index("\n## Troubleshooting\n")
    table = text[start : text.index("\n## ", start + 1)]
    targets = re.findall(r"\]\((\S+/common_mistakes\.md#\S+)\)", table)
    lessons = {f"{each.page}#{pages.anchor(each.title)}" for each in LESSONS}
    for lesson in lessons:
        assert targets.count(lesson) == 1, (
            f"README.md links {lesson} {targets.count(lesson)} times from "
            "Troubleshooting: once is right"
        )
    assert set(targets) == lessons


def test_every_folder_has_its_mistakes():
    assert {page.partition("/")[0] for page in MISTAKES} == set(FOLDERS)
