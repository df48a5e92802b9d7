"""What the README shows is what there is: code, outputs, sessions, counts, links."""

import doctest
import math
import re

import pytest
from collection import CHARS, FAMILY_A, HOGWILD, ROOT, SCRIPTS, options
from readme import (
    README,
    as_run,
    blocks,
    code,
    commands,
    headings,
    in_words,
    links,
    rows,
    script_shown,
)

TEXT = README.read_text(encoding="utf-8")
SHOWN = {script_shown(body): body for body in blocks(TEXT, "python")}
OUTPUTS = {as_run(command): output for command, output in commands(TEXT).items()}
SECTIONS = re.split(r"^(?=## )", TEXT, flags=re.MULTILINE)
SESSIONS = {
    section.splitlines()[0].strip("# "): [
        body for body in blocks(section, "python") if body.startswith(">>> ")
    ]
    for section in SECTIONS
    if ">>> " in section
}


@pytest.mark.parametrize("script", [script for script in SHOWN if script])
def test_code_shown_is_the_file(script):
    assert SHOWN[script] == code(script)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_linked(script):
    assert script in links(TEXT)


def close(shown, real, first):
    """Whether two losses differ by rounding alone, given the first loss of the run."""
    distance = abs(math.sqrt(shown) - math.sqrt(real))
    return distance <= 64 * 2**-23 * math.sqrt(first) + 0.005 * math.sqrt(real)


WORDS = ["loss", "accuracy", "nn.RNN", "bits per character", "images per second"]
WORDS += ["seconds", "counter", "speed-up"]
NUMBER = re.compile(rf"({'|'.join(map(re.escape, WORDS))}) (\S+)")


def numbers(text):
    """Return {word: all numbers that follow it in the text}."""
    found = {word: [] for word in WORDS}
    for word, number in NUMBER.findall(text):
        found[word].append(float(number))
    return found


@pytest.mark.parametrize("command", OUTPUTS, ids=" ".join)
def test_output_shown_is_what_the_script_prints(run, command):
    """Speeds are not compared; an accuracy is the last one, after a long training.

    The text of CHARS comes with Python: another version has another text. The
    processes of HOGWILD print in any order, and learn a little differently each time.
    """
    shown, real = numbers(OUTPUTS[command]), numbers(run.stdout)
    near = 0.08 if command[0] == HOGWILD else 0.02
    assert real["accuracy"][-1:] == pytest.approx(shown["accuracy"][-1:], abs=near)
    if command[0] == CHARS:
        bits = "bits per character"
        assert real[bits][-1] == pytest.approx(shown[bits][-1], rel=0.2)
        return
    if "--epochs" not in options(command[0]):
        for word in ("loss", "nn.RNN"):
            for one, other in zip(shown[word], real[word], strict=True):
                assert close(one, other, first=real[word][0])
    order = sorted if command[0] == HOGWILD else list
    ours, theirs = (NUMBER.sub(r"\1", text) for text in (OUTPUTS[command], run.stdout))
    assert order(ours.splitlines()) == order(theirs.splitlines())


@pytest.mark.parametrize("script", [script for script in SHOWN if script])
def test_output_of_every_script_shown_is_shown(script):
    assert any(command[0] == script for command in OUTPUTS)


@pytest.mark.parametrize("section", SESSIONS)
def test_sessions_run(section):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    variables = {}
    for body in SESSIONS[section]:
        test = doctest.DocTestParser().get_doctest(body, variables, section, None, 0)
        runner.run(test, clear_globs=False)
        variables = test.globs
    assert runner.summarize().failed == 0
    assert runner.tries > 0


def test_every_prompt_is_in_a_session_that_runs():
    assert TEXT.count("\n>>> ") == sum(
        body.count("\n>>> ") + 1 for bodies in SESSIONS.values() for body in bodies
    )


@pytest.mark.parametrize("target", sorted(set(links(TEXT))))
def test_link_resolves(target):
    if target.startswith("#"):
        assert headings(TEXT).count(target[1:]) == 1
    elif not target.startswith("https://"):
        assert (ROOT / target).exists()


@pytest.mark.parametrize("script", rows(TEXT))
def test_count_of_changed_lines_is_right(script):
    neighbour, count = rows(TEXT)[script]
    assert count == in_words(script, neighbour)


def test_every_rung_is_in_the_table():
    rungs = {s for s in SCRIPTS if "two_layer_net" in s or "dynamic_net" in s}
    assert rungs == set(rows(TEXT)) | {FAMILY_A[0]}
