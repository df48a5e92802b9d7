"""The exercises, their solutions and the wrong answers to them.

The functions of FOLDER/FOLDER_exercises.py are solved in
tests/solutions/FOLDER_solutions.py, and answered wrongly, each in several ways, in
tests/wrong_answers/FOLDER_wrong_answers.py.
"""

import functools
import importlib

from collection import ROOT, SCRIPTS

FOLDERS = [s.split("/")[0] for s in SCRIPTS if s.endswith("_exercises.py")]


@functools.cache
def judge(folder):
    """Return the module FOLDER_exercises."""
    return importlib.import_module(f"{folder}_exercises")


@functools.cache
def loaded(path):
    """Return the variables of a file, as the judge loads it."""
    variables, problem = judge("tensor").load(str(ROOT / path))
    assert problem is None, f"{path}: {problem}"
    return variables


def names(folder):
    """Return the names of a folder's exercises."""
    checks = [name for name in vars(judge(folder)) if name.startswith("check_")]
    return [name.removeprefix("check_") for name in checks]


def holes(folder):
    return loaded(f"{folder}/{folder}_exercises.py")


def solutions(folder):
    return loaded(f"tests/solutions/{folder}_solutions.py")


def wrong_answers(folder):
    """Return {"row_means__in_place": that function, ...}."""
    variables = loaded(f"tests/wrong_answers/{folder}_wrong_answers.py")
    return {
        name: answer
        for name, answer in variables.items()
        if "__" in name.strip("_") and callable(answer)
    }


EXERCISES = [(folder, name) for folder in FOLDERS for name in names(folder)]
