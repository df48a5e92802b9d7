"""What the README shows is what there is: code, outputs, sessions, counts, links."""

import doctest
import math
import re

import pytest
import torch
from collection import (
    CHARS,
    DEVICES,
    FAMILY_A,
    FSDP,
    HOGWILD,
    PROFILE,
    ROOT,
    SCRIPTS,
    options,
)
from readme import (
    README,
    TIMED,
    as_run,
    blocks,
    code,
    commands,
    headings,
    in_words,
    links,
    rows,
    script_shown,
    sessions,
)

TEXT = README.read_text(encoding="utf-8")
SHOWN = {script_shown(body): body for body in blocks(TEXT, "python")}
OUTPUTS = {as_run(command): output for command, output in commands(TEXT).items()}
SESSIONS = sessions(TEXT)


@pytest.mark.parametrize("script", [script for script in SHOWN if script])
def test_code_shown_is_the_file(script):
    assert SHOWN[script] == code(script)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_linked(script):
    assert script in links(TEXT)


def close(shown, real, first, eps):
    """Whether two losses differ by rounding alone, given the first loss of the run."""
    distance = abs(math.sqrt(shown) - math.sqrt(real))
    return distance <= 64 * eps * math.sqrt(first) + 0.005 * math.sqrt(real)


# The words before a number. After the first four it is the same up to rounding (in
# bfloat16, too, the errors of a sum are smaller than its terms' own); an accuracy is
# nearly the same in the end; speeds and the like differ from run to run.
ROUNDING = {"loss": 2**-23, "nn.RNN": 2**-23, "bfloat16": 2**-16, "the mean": 2**-23}
WORDS = [*ROUNDING, "accuracy", "bits per character", "norm", "difference"]
WORDS += ["off by up to", "images per second", "steps per second", "speed", "share"]
WORDS += ["seconds", "ratio", "pays after", "there in", "relative time", "counter"]
WORDS += ["speed-up"]
TIMES = re.compile(r"\d+\.\d+|inf")
# The text of these comes with Python: another version has another text.
OF_PYTHONS_TEXT = {CHARS: "bits per character", FSDP: "loss"}
NUMBER = re.compile(rf"({'|'.join(map(re.escape, WORDS))}) ([+-]?\d\S*|inf|nan)")


def numbers(text):
    """Return {word: all numbers that follow it in the text}."""
    found = {word: [] for word in WORDS}
    for word, number in NUMBER.findall(text):
        found[word].append(float(number.rstrip("%")))
    return found


@pytest.mark.parametrize("command", OUTPUTS, ids=" ".join)
def test_output_shown_is_what_the_script_prints(run, command):
    shown, real = numbers(OUTPUTS[command]), numbers(run.stdout)
    near = 0.08 if command[0] == HOGWILD else 0.02
    assert real["accuracy"][-1:] == pytest.approx(shown["accuracy"][-1:], abs=near)
    assert real["there in"] == pytest.approx(shown["there in"], abs=3)
    if command[0] in OF_PYTHONS_TEXT:
        word = OF_PYTHONS_TEXT[command[0]]
        assert real[word][-1] == pytest.approx(shown[word][-1], rel=0.2)
        return
    if command[0] == TIMED:
        kept = [TIMES.sub("", text).split() for text in (OUTPUTS[command], run.stdout)]
        assert kept[0] == kept[1]
        return
    if "--epochs" not in options(command[0]):
        for word, eps in ROUNDING.items():
            for one, other in zip(shown[word], real[word], strict=True):
                assert close(one, other, real[word][0], eps)
    texts = [NUMBER.sub(r"\1", text) for text in (OUTPUTS[command], run.stdout)]
    if command[0] == PROFILE:  # what is dearest, another machine may see differently
        texts = [text.splitlines()[:3] for text in texts]
    if command[0] == HOGWILD:  # its processes print in any order
        texts = [sorted(text.splitlines()) for text in texts]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("script", [script for script in SHOWN if script])
def test_output_of_every_script_shown_is_shown(script):
    assert any(command[0] == script for command in OUTPUTS)


@pytest.mark.parametrize("section, needs", SESSIONS)
def test_sessions_run(section, needs):
    """Those that need a device that is missing are only read."""
    parse = doctest.DocTestParser().get_doctest
    tests = [parse(s, {}, section, None, 0) for s in SESSIONS[section, needs]]
    for example in (example for test in tests for example in test.examples):
        compile(example.source, section, "single")
    if needs and not getattr(torch, needs).is_available():
        pytest.skip(f"a session of the README that needs {needs}, which is not here")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    variables = {}
    for test in tests:
        test.globs = variables
        runner.run(test, clear_globs=False)
    assert runner.summarize().failed == 0
    assert runner.tries > 0


def test_every_prompt_is_in_a_session_that_runs():
    """Or in one that runs where the device is that its comment names."""
    bodies = [body for bodies in SESSIONS.values() for body in bodies]
    assert TEXT.count("\n>>> ") == sum(body.count("\n>>> ") + 1 for body in bodies)
    needing = [key[1] for key in SESSIONS for body in SESSIONS[key] if key[1]]
    assert set(needing) <= set(DEVICES[1:])
    assert TEXT.count("<!-- needs ") == len(needing)


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
