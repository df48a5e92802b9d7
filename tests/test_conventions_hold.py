"""What protects readers and no linter sees, and what linters see."""

import ast
import importlib.machinery
import subprocess
import sys
from pathlib import Path

import pytest
from collection import FOLDERS, ROOT, SCRIPTS, source

each_script = pytest.mark.parametrize("script", SCRIPTS)


@each_script
def test_name_hides_no_module(script):
    """The folder of a script is the first place where Python looks for modules."""
    name = Path(script).stem
    advice = f"rename {script}: it would be imported in place of the module {name}"
    assert name not in sys.stdlib_module_names, advice
    elsewhere = [path for path in sys.path if Path(path).parent != ROOT]
    assert importlib.machinery.PathFinder.find_spec(name, elsewhere) is None, advice


def test_names_are_unique():
    """Tests import programs by their names, wherever they are."""
    names = [Path(script).stem for script in SCRIPTS]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"rename one of the scripts that are called {twice}"


@each_script
def test_script_stands_alone(script):
    siblings = {Path(other).stem for other in SCRIPTS} | set(FOLDERS)
    for node in ast.walk(ast.parse(source(script))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        for name in names:
            first = name.split(".")[0]
            assert first not in siblings and first, (
                f"{script} imports {name}: a reader who copies it has only this file"
            )


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_are_no_packages(folder):
    assert not (ROOT / folder / "__init__.py").exists(), (
        f"{folder}/__init__.py: delete it, the scripts are not a package"
    )


@pytest.mark.parametrize(
    "tool",
    [
        "flake8",
        "ruff check --isolated --no-cache",
        "ruff format --check --isolated --exclude=*.md",
    ],
)
def test_linter_is_content(tool):
    """Pages are left out: their excerpts are not whole programs."""
    command = [sys.executable, "-m", *tool.split(), "."]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"python -m {tool} . says:\n{done.stdout}{done.stderr}"
