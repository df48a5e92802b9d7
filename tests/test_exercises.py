"""The judge of the exercises says right, wrong and not yet where it should."""

import doctest
import functools
import inspect
import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys

import collection
import exercises
import numpy as np
import pages
import pytest
import torch
from collection import ROOT, outcome, run_in, source
from exercises import EXERCISES, FOLDERS

each_exercise = pytest.mark.parametrize("folder, name", EXERCISES)
each_folder = pytest.mark.parametrize("folder", FOLDERS)
WRONG = [
    (folder, answer) for folder in FOLDERS for answer in exercises.wrong_answers(folder)
]


def verdict(folder, name, answers):
    """Return the verdict in one line, which it has to be."""
    words, _ = exercises.judge(folder).verdict(name, answers)
    assert "\n" not in words and len(words) < 300, words
    return words


def test_every_folder_has_six_to_ten():
    assert FOLDERS == collection.FOLDERS
    assert all(6 <= len(exercises.names(folder)) <= 10 for folder in FOLDERS)


@each_exercise
def test_a_hole_is_not_yet_an_answer(folder, name):
    assert verdict(folder, name, exercises.holes(folder)) == "not yet"


@each_exercise
def test_a_solution_is_right(folder, name):
    advice = f"add {name}() to tests/solutions/{folder}_solutions.py"
    assert name in exercises.solutions(folder), advice
    assert verdict(folder, name, exercises.solutions(folder)) == "right"


@each_exercise
def test_there_are_two_wrong_answers(folder, name):
    count = sum(a.startswith(f"{name}__") for a in exercises.wrong_answers(folder))
    assert count >= 2, (
        f"add plausible ones to tests/wrong_answers/{folder}_wrong_answers.py, called "
        f"{name}__and_what_is_wrong, with words of the verdict as docstring"
    )


@pytest.mark.parametrize("folder, answer", WRONG)
def test_a_wrong_answer_is_rejected_and_told_why(folder, answer):
    name = answer.partition("__")[0]
    assert name in exercises.names(folder), f"there is no exercise for {answer}()"
    function = exercises.wrong_answers(folder)[answer]
    words = verdict(folder, name, {name: function})
    assert words.startswith("wrong: ")
    assert inspect.getdoc(function) in words


def raises(*_, **__):
    raise ValueError("first line" + 100 * " and more" + "\nsecond line")


@each_exercise
@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda *_, **__: None, "wrong: "),
        (lambda *_, **__: "text", "wrong: "),
        (lambda *_, **__: torch.tensor(float("nan")), "wrong: "),
        (lambda: 0, "wrong: "),
        (raises, "wrong: ValueError: first line"),
        (0, "wrong: "),
    ],
    ids=["None", "text", "nan", "no arguments", "raises", "no function"],
)
def test_nonsense_gets_one_line(folder, name, answer, said):
    assert verdict(folder, name, {name: answer}).startswith(said)


@each_exercise
def test_a_missing_function_is_named(folder, name):
    assert verdict(folder, name, {}) == f"wrong: the file has no {name}"


def with_one_more_dimension(result, first):
    return result[None]


def in_another_dtype(result, first):
    return result.to(torch.float16 if result.is_floating_point() else torch.int16)


def after_a_change_in_place(result, first):
    first.data += 1
    return result


def altered(answer, change, seen):
    """Return the answer with a change, if it makes a tensor of others."""

    @functools.wraps(answer)
    def changed(*arguments):
        result = answer(*arguments)
        first = arguments[0]
        if not isinstance(first, torch.Tensor) or not isinstance(result, torch.Tensor):
            return result
        seen.append(answer)
        return change(result, first)

    return changed


@each_folder
@pytest.mark.parametrize(
    "change", [with_one_more_dimension, in_another_dtype, after_a_change_in_place]
)
def test_shape_dtype_and_inputs_are_checked(folder, change):
    seen = []
    for name in exercises.names(folder):
        answer = exercises.solutions(folder)[name]
        if inspect.isfunction(answer):
            words = verdict(folder, name, {name: altered(answer, change, seen)})
            assert words.startswith("wrong: ") or answer not in seen, name
    assert seen


@each_exercise
def test_the_example_is_what_the_solution_prints(folder, name):
    text = inspect.getdoc(exercises.holes(folder)[name])
    test = doctest.DocTestParser().get_doctest(
        text, dict(exercises.solutions(folder)), name, None, 0
    )
    assert test.examples or "losses" in text, (
        f"{name}: give an example, >>> {name}(...)"
    )
    report = io.StringIO()
    doctest.DocTestRunner(verbose=False).run(test, out=report.write)
    assert not report.getvalue(), report.getvalue()


@each_exercise
def test_what_to_read_is_there(folder, name):
    text = inspect.getdoc(exercises.holes(folder)[name])
    link = re.search(r"^Read: (\S+)$", text, re.MULTILINE)
    assert link, (
        f"{name}: end its docstring with a line Read: {folder}/README.md#section"
    )
    if not link[1].startswith("https://docs.pytorch.org/"):
        page, _, anchor = link[1].partition("#")
        assert anchor in pages.anchors(page), f"{name}: {page} has no section {anchor}"


# The judge itself, by the parts that checks use.

judge = exercises.judge("tensor")


def test_inputs_are_of_all_kinds_and_of_different_sizes():
    kinds = list(judge.inputs("nd", "dm"))
    for x, y in kinds:
        assert x.shape[1] == y.shape[0]
        assert len({*x.shape, *y.shape}) == 3
    xs = [x for x, _ in kinds]
    assert xs[0].shape == (2, 3) and xs[0].dtype == torch.float32
    assert any(len(x) == 1 for x in xs) and any(len(x) == 0 for x in xs)
    assert any((x == 0).all() and len(x) > 1 for x in xs)
    assert any((x < 0).any() for x in xs) and any(not x.is_contiguous() for x in xs)
    assert {x.dtype for x in xs} == {torch.float32, torch.float64}
    assert all(len(x) for x, _ in judge.inputs("nd", "dm", empty=False))


@pytest.mark.parametrize(
    "got, wanted, said",
    [
        (
            torch.tensor([1.0, math.nan]),
            torch.tensor([1.0, 2.0]),
            "[1] is nan, wanted 2",
        ),
        (torch.tensor(3.0), torch.tensor(2.0), " is 3, wanted 2"),
        (torch.tensor(1.001), torch.tensor(1.0), " is 1.001, wanted 1"),
        (torch.tensor([1]), torch.tensor([[1]]), " has shape (1,), wanted (1, 1)"),
        (
            torch.tensor(1),
            torch.tensor(1.0),
            " has dtype torch.int64, wanted torch.float",
        ),
        (torch.ones(2, device="meta"), torch.ones(2), " is on meta, wanted on cpu"),
        ([1.0], torch.ones(1), " is of type list, wanted a tensor"),
        (None, torch.ones(1), " is None: is there a return missing?"),
        ([1], (1, 2), " is no list or tuple of 2 values"),
        ([1, 3], (1, 2), "[1] is 3, wanted 2"),
        (True, 1.0, " is of type bool, wanted a number"),
        (0.1 + 1e-6, 0.1, " is 0.100001, wanted 0.1"),
        (1 + 2e-6, 1.0, " is 1.0000020000000001, wanted 1"),
        (1.0, 1, " is of type float, wanted 1"),
        ("a", "b", " is 'a', wanted 'b'"),
    ],
)
def test_what_differs_is_named(got, wanted, said):
    with pytest.raises(judge.Wrong) as raised:
        judge.compare(got, wanted, "it")
    assert str(raised.value).startswith(f"it{said}")


def test_what_is_equal_up_to_rounding_is_right():
    third = torch.tensor(1 / 3, dtype=torch.float64)
    judge.compare(
        (third.float() * 3, [1], 0.1 * 3), (torch.tensor(1.0), (1,), 0.3), "it"
    )


@pytest.mark.parametrize(
    "old, new, same",
    [
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), True),
        (torch.tensor([1.0, math.nan]), torch.tensor([2.0, math.nan]), False),
        (torch.tensor([1]), torch.tensor([1, 1]), False),
        ([torch.ones(2)], [torch.ones(2)], True),
        ([torch.ones(2)], [torch.zeros(2)], False),
        ([torch.ones(2)], [], False),
        (np.ones(2), np.zeros(2), False),
    ],
)
def test_changes_in_place_are_noticed(old, new, same):
    assert bool(judge.unchanged(old, new)) == same


def test_a_function_of_a_library_may_be_an_answer():
    assert verdict("tensor", "outer_product", {"outer_product": torch.outer}) == "right"


def test_an_answer_does_not_spoil_the_next():
    def row_means(x):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return x.mean(dim=1)

    answers = {"row_means": row_means}
    assert "autograd switched off" in verdict("tensor", "row_means", answers)
    assert verdict("tensor", "row_means", exercises.solutions("tensor")) == "right"
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32


# As a reader runs them.

TENSOR = "tensor/tensor_exercises.py"


def lines(done):
    """Return {exercise: verdict} of a run."""
    found = re.findall(r"^(\w+) +(right|not yet|wrong: .*)$", done.stdout, re.MULTILINE)
    return dict(found)


@each_folder
def test_the_judge_is_the_same_everywhere(folder):
    def text(folder):
        return source(f"{folder}/{folder}_exercises.py").partition("\n# The judge.")[2]

    assert text("tensor")
    assert text(folder) == text("tensor"), (
        f"{folder}/{folder}_exercises.py: copy the judge from {TENSOR}"
    )


def test_a_copy_works_alone(tmp_path):
    copy = shutil.copy(ROOT / TENSOR, tmp_path / "my copy.py")
    done = run_in(tmp_path, copy)
    assert (done.returncode, done.stderr) == (1, "")
    assert lines(done) == dict.fromkeys(exercises.names("tensor"), "not yet")
    assert done.stdout.endswith("\n0 of 10 right\n")
    assert [file.name for file in tmp_path.iterdir()] == ["my copy.py"]


@pytest.mark.parametrize("folder", ["tensor", "advanced"])
def test_all_solutions_together(folder, tmp_path):
    solutions = ROOT / f"tests/solutions/{folder}_solutions.py"
    done = run_in(tmp_path, f"{folder}/{folder}_exercises.py", "--answers", solutions)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(lines(done).values()) == {"right"}


MISBEHAVING = """import itertools, os, sys, torch
def outer_product(x, y):
    sum(itertools.count())
def row_means(x):
    while True: pass
def one_hot(labels, classes):
    sys.exit("good bye")
def standardize(x):
    os._exit(0)
def sliding_windows(x, size):
    return sliding_windows(x, size)
def bilinear_scores(x, weight, y):
    return {}["weight"]
def squared_distances(x, y):
    raise NotImplementedError("for matrices")
class confusion_matrix:
    pass
def fit_line(x, y):
    torch.set_grad_enabled(False)
    print("Here I am.")
    raise NotImplementedError
"""
SAID = {
    "outer_product": "wrong: no answer after 1 seconds",
    "row_means": "wrong: no answer after 1 seconds",
    "one_hot": "wrong: line 7: SystemExit: good bye",
    "standardize": "wrong: it ends Python",
    "sliding_windows": "wrong: line 11: RecursionError: maximum recursion depth "
    "exceeded",
    "bilinear_scores": "wrong: line 13: KeyError: 'weight'",
    "squared_distances": "wrong: line 15: NotImplementedError: for matrices",
    "confusion_matrix": "wrong: TypeError: confusion_matrix() takes no arguments",
    "two_layer_net": "wrong: the file has no two_layer_net",
    "fit_line": "not yet",
}


def test_what_misbehaves_gets_one_line(tmp_path):
    impatient = tmp_path / "tensor_exercises.py"
    text = source(TENSOR).replace("\nSECONDS = 5", "\nSECONDS = 1")
    impatient.write_text(text, encoding="utf-8")
    answers = tmp_path / "my answers.txt"
    answers.write_text(MISBEHAVING, encoding="utf-8")
    done = run_in(tmp_path, impatient, "--answers", answers)
    assert done.stderr == ""
    assert lines(done) == SAID
    assert "Here I am." in done.stdout
    assert done.stdout.endswith("\n0 of 10 right\n")
    assert done.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one")
def test_ctrl_c_leaves_no_traceback_and_no_process(tmp_path):
    answers = tmp_path / "answers.py"
    loop = "def row_means(x):\n    print(os.getpid())\n    while True: pass\n"
    answers.write_text("import os\n" + loop, encoding="utf-8")
    words = [sys.executable, ROOT / TENSOR, "row_means", "--answers", answers]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=tmp_path, **pipe) as judging:
        busy = int(judging.stdout.readline())
        judging.send_signal(signal.SIGINT)
        _, errors = judging.communicate(timeout=60)
    assert (judging.returncode, errors) == (130, "")
    with pytest.raises(ProcessLookupError):
        os.kill(busy, 0)


def test_a_name_shows_a_small_input_that_fails_and_hints(tmp_path):
    answers = tmp_path / "answers.py"
    answers.write_text("def row_means(x):\n    return x.mean(0)\n", encoding="utf-8")
    options = "row_means", "--hint", "--hint", "--answers", answers
    done = run_in(tmp_path, TENSOR, *options)
    assert (done.returncode, done.stderr) == (1, "")
    words = "wrong: for x of shape (2, 3) your answer has shape (3,), wanted (2,)"
    details = r"x = t[^:]+\nwanted: t.+\nyour answer: t.+\n"
    hints = r"\nHint: [^:]+\nHint: [^:]+\n"
    pattern = rf"row_means +{re.escape(words)}\n\n{details}{hints}"
    assert re.fullmatch(pattern, done.stdout)


@pytest.mark.parametrize(
    "text, said",
    [
        (None, "FileNotFoundError: "),
        (b"def f(:\n", "SyntaxError: "),
        (b"import no_such_module\n", "ModuleNotFoundError: No module named"),
        (b"exit('good bye')\n", "SystemExit: good bye"),
        (b"\xff\xfe\x00", "UnicodeDecodeError: "),
    ],
    ids=["missing", "syntax", "import", "exit", "binary"],
)
def test_a_bad_file_of_answers_has_a_problem(text, said, tmp_path):
    answers = tmp_path / "answers.py"
    if text is not None:
        answers.write_bytes(text)
    _, problem = exercises.judge("tensor").load(str(answers))
    assert problem.startswith(said) and "\n" not in problem


def test_a_bad_file_of_answers_gets_one_line(tmp_path):
    answers = tmp_path / "answers.py"
    answers.write_text("import os\nos._exit(0)\n", encoding="utf-8")
    done = run_in(tmp_path, TENSOR, "--answers", answers)
    problem = "it ends Python, or takes longer than a minute"
    assert done.stderr == f"cannot load {answers}: {problem}\n"
    assert (done.returncode, done.stdout) == (2, "")


def test_the_front_page_shows_what_the_judge_says():
    answers = dict(exercises.holes("tensor"))
    answers["outer_product"] = exercises.solutions("tensor")["outer_product"]
    answers["row_means"] = lambda x: x.mean(dim=0)
    for name in ["outer_product", "row_means"]:
        line = f"{name:22}{verdict('tensor', name, answers)}\n"
        assert line in pages.text("README.md"), f"README.md, Exercises: show {line}"


@pytest.mark.parametrize(
    "option, said",
    [("row_mean", "choose from"), ("--hint", "--hint needs the name of an exercise")],
)
def test_a_wrong_command_is_refused(option, said):
    code, _, errors = outcome(TENSOR, argv=[option])
    assert code == 2
    assert said in errors.splitlines()[-1]


@each_folder
def test_the_chapter_ends_with_its_exercises(folder):
    page = f"{folder}/README.md"
    last = pages.text(page).rpartition("\n## ")[2]
    advice = f"{page}: end it with the section Exercises; see tensor/README.md"
    assert last.startswith("Exercises\n"), advice
    for path in f"{folder}_exercises.py", f"../tests/solutions/{folder}_solutions.py":
        assert f"({path})" in last, f"{page}: link {path} under Exercises"
    assert "<details>" in last, f"{page}: hide the link of the solutions in <details>"
    untold = [name for name in exercises.names(folder) if name not in last]
    assert not untold, f"{page}: name {untold} under Exercises"
