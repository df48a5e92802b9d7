"""The house rules that a command can check."""

import ast
import importlib.machinery
import re
import subprocess
import sys
from pathlib import Path

import pytest
from collection import (
    FOLDERS,
    ROOT,
    SCRIPTS,
    options,
    outcome,
    skip_if_missing,
    source,
)

each_script = pytest.mark.parametrize("script", SCRIPTS)


CLI = """\
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=N, help="default: %(default)s")
parser.add_argument("--epochs", type=int, default=N, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")
if args.epochs < 1:
    parser.error("argument --epochs: must be 1 or more")
"""
DEVICES = (
    'devices = [d for d in ("cpu", "cuda", "mps", "xpu") '
    "if getattr(torch, d).is_available()]\n"
)


@each_script
def test_cli_block_is_the_same_everywhere(script):
    """The lines of the block above, in its order, less those for options it lacks."""
    text = re.sub(r"default=\d+", "default=N", source(script))
    place = 0
    for line in CLI.splitlines():
        option = re.search("steps|epochs|device", line)
        needed = f"--{option[0]}" in options(script) if option else True
        if needed and (options(script) or "args" not in line):
            place = text.index(line, place)
    if "--device" in options(script):
        # There is no backend by which processes could exchange tensors on mps.
        gone = '"mps", ' if "torch.distributed" in text else ""
        assert DEVICES.replace(gone, "") in text


@each_script
def test_help_is_the_lesson(script):
    skip_if_missing(script)
    code, output, _ = outcome(script, argv=["--help"])
    assert code == 0
    lesson = ast.get_docstring(ast.parse(source(script)))
    assert " ".join(output.split()).startswith(" ".join(lesson.split()))


@each_script
def test_name_has_two_words_and_hides_no_module(script):
    name = Path(script).stem
    # One word does where it is long, and says all.
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+|initialization", name)
    assert name not in sys.stdlib_module_names
    elsewhere = [path for path in sys.path if Path(path).parent != ROOT]
    assert importlib.machinery.PathFinder.find_spec(name, elsewhere) is None


@each_script
def test_script_stands_alone(script):
    siblings = {Path(other).stem for other in SCRIPTS} | set(FOLDERS)
    for node in ast.walk(ast.parse(source(script))):
        if isinstance(node, ast.Import):
            assert not siblings & {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module.split(".")[0] not in siblings


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_are_no_packages(folder):
    assert not (ROOT / folder / "__init__.py").exists()


@each_script
def test_classes_have_docstrings(script):
    for node in ast.walk(ast.parse(source(script))):
        if isinstance(node, ast.ClassDef):
            assert ast.get_docstring(node)


@pytest.mark.parametrize(
    "tool",
    ["flake8", "ruff check --isolated --no-cache", "ruff format --check --isolated"],
)
def test_linter_is_content(tool):
    command = [sys.executable, "-m", *tool.split(), "."]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
