"""The house rules that a command can check."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from collection import FOLDERS, ROOT, SCRIPTS, TENSORFLOW, execute, source
from readme import README, changed, rows

LADDER = sorted(rows(README.read_text(encoding="utf-8")))
each_script = pytest.mark.parametrize("script", SCRIPTS)


@each_script
def test_length(script):
    assert len(source(script).splitlines()) <= (60 if script in LADDER else 120)


@pytest.mark.parametrize("script", LADDER)
def test_neighbours_on_the_ladder_differ_by_their_idea_alone(script):
    neighbour, _ = rows(README.read_text(encoding="utf-8"))[script]
    assert sum(changed(script, neighbour)) <= (50 if script == TENSORFLOW else 25)


@each_script
def test_cli_block_is_the_same_everywhere(script):
    block = re.search(
        r"^parser = .*?^(?=\n|devices)", source(script), re.MULTILINE | re.DOTALL
    )[0]
    same, *rest = block.splitlines()
    assert same == (
        "parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)"
    )
    assert "parse_args()" in block
    if '"--steps"' in block:
        assert rest[0] == (
            'parser.add_argument("--steps", type=int, default=500, '
            'help="default: %(default)s")'
        )
        check = "if args.steps < 1:"
        assert rest[rest.index(check) + 1] == (
            '    parser.error("argument --steps: must be 1 or more")'
        )
    if '"--device"' in block:
        assert (
            'parser.add_argument("--device", choices=devices, default="cpu", '
            'help="default: cpu")'
        ) in rest
        assert (
            'devices = [d for d in ("cpu", "cuda", "mps", "xpu") '
            "if getattr(torch, d).is_available()]\n"
        ) in source(script)


@each_script
def test_help_is_the_lesson(script, capsys):
    with pytest.raises(SystemExit) as exit:
        execute(script, argv=["--help"])
    assert exit.value.code == 0
    lesson = ast.get_docstring(ast.parse(source(script)))
    assert " ".join(capsys.readouterr().out.split()).startswith(
        " ".join(lesson.split())
    )


@each_script
def test_docstring_has_a_summary_and_two_to_six_lines(script):
    summary, empty, *lines = ast.get_docstring(ast.parse(source(script))).splitlines()
    assert summary.endswith(".") and empty == ""
    assert 2 <= len(lines) <= 6


@each_script
def test_name_has_two_words_and_hides_no_module(script):
    name = Path(script).stem
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", name)
    assert importlib.util.find_spec(name) is None


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
def test_no_type_hints(script):
    for node in ast.walk(ast.parse(source(script))):
        assert not isinstance(node, ast.AnnAssign)
        assert getattr(node, "annotation", None) is None
        assert getattr(node, "returns", None) is None


@each_script
def test_classes_have_docstrings(script):
    for node in ast.walk(ast.parse(source(script))):
        if isinstance(node, ast.ClassDef):
            assert ast.get_docstring(node)


@each_script
def test_comments_are_neither_rare_nor_many(script):
    """About one line in five carries one."""
    lines = [line for line in source(script).splitlines() if line]
    commented = [line for line in lines if re.search("(^|  )# ", line.lstrip())]
    assert 0.08 <= len(commented) / len(lines) <= 0.35


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
