"""Every mistake is one, is mended, is asserted, and is found by its symptom."""

import ast
import functools
import importlib
import multiprocessing
import re
import sys
import tempfile

import pages
import pytest
from collection import FOLDERS, MISTAKES, execute, run, source

FLAT = [script for script in MISTAKES if "__main__" not in source(script)]


@functools.cache
def functions(script):
    """Return {name: its syntax tree} of the functions that ask a question."""
    return {
        node.name: node
        for node in ast.parse(source(script)).body
        if isinstance(node, ast.FunctionDef)
        and (ast.get_docstring(node) or "").endswith("?")
    }


ALL = [(script, name) for script in MISTAKES for name in functions(script)]
each_mistake = pytest.mark.parametrize("script, name", ALL)
each_script = pytest.mark.parametrize("script", MISTAKES)


def text_of(script, name):
    node = functions(script)[name]
    lines = source(script).splitlines()
    return "\n".join(lines[i] for i in range(node.lineno - 1, node.end_lineno))


# These fork, or take seconds: the run of the whole script is enough.
HERE = [
    mistake
    for mistake in ALL
    if not re.search(r'subprocess|get_context\("fork"\)', text_of(*mistake))
]


def assertions(script, name):
    """Return the conditions that a function asserts, in their order."""
    tree = functions(script)[name]
    return [node.test for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def names(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


FOLDER = tempfile.TemporaryDirectory()


@functools.cache
def imported(script):
    """Return the script as a module whose functions return their variables.

    It is a file, so that the processes that a function starts can import it, too.
    """
    module = ast.parse(source(script))
    kinds = ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef
    module.body = [node for node in module.body if isinstance(node, kinds)]
    for node in module.body:
        if getattr(node, "name", None) in functions(script):
            node.body.append(ast.parse("return locals()").body[0])
    name = script.removesuffix(".py").replace("/", "_")
    with open(f"{FOLDER.name}/{name}.py", "w", encoding="utf-8") as file:
        file.write(ast.unparse(module))
    sys.path.append(FOLDER.name)
    return importlib.import_module(name)


@pytest.fixture
def started_anew():
    """Processes start as the scripts start them: without what is in memory here."""
    before = multiprocessing.get_start_method(allow_none=True)
    methods = multiprocessing.get_all_start_methods()
    method = "forkserver" if "forkserver" in methods else "spawn"
    multiprocessing.set_start_method(method, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def holds(condition, variables):
    """Whether a condition is true; one that cannot be computed is not."""
    code = compile(ast.Expression(condition), "condition", "eval")
    try:
        return bool(eval(code, variables))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False


@pytest.mark.parametrize("script, name", HERE)
@pytest.mark.usefixtures("started_anew")
def test_wrong_is_wrong_and_right_is_right(script, name):
    """What is asserted of the wrong way does not hold for the right one, or reverse."""
    module = imported(script)
    variables = vars(module) | getattr(module, name)()
    swapped = variables | {
        "wrong": variables["right"],
        "right": variables["wrong"],
    }
    seen = set()
    for condition in assertions(script, name):
        ways = names(condition) & {"wrong", "right"}
        if ways:
            assert holds(condition, dict(variables)), ast.unparse(condition)
            assert not holds(condition, dict(swapped)), ast.unparse(condition)
        seen |= ways
    assert seen == {"wrong", "right"}


def told(script):
    """Return {name: what a run of the whole script prints about this mistake}."""
    blocks = run(script).stdout.strip().split("\n\n")
    return {block.partition("\n")[0]: block for block in blocks}


@each_script
def test_all_are_told_in_their_order(script):
    assert list(told(script)) == list(functions(script))


@each_mistake
def test_question_both_ways_and_reason_are_told(script, name):
    lines = told(script)[name].splitlines()
    assert lines[1] == ast.get_docstring(functions(script)[name])
    labels = [line.partition(":")[0] for line in lines[2:]]
    assert [label for label in labels if label in ("wrong", "right", "why")] == [
        "wrong",
        "right",
        "why",
    ]


@each_mistake
def test_function_is_in_the_order_wrong_right(script, name):
    lines = [line.strip() for line in text_of(script, name).splitlines()]
    (wrong,) = [k for k, line in enumerate(lines) if line.startswith("# Wrong: ")]
    (right,) = [k for k, line in enumerate(lines) if line.startswith("# Right: ")]
    asserted = [k for k, line in enumerate(lines) if line.startswith("assert ")]
    assert any(wrong < k < right for k in asserted)
    assert any(right < k for k in asserted)


@pytest.mark.parametrize("script", FLAT)
def test_function_can_be_copied_alone(script):
    """Nothing is defined beside the mistakes."""
    kinds = ast.FunctionDef, ast.ClassDef
    tree = ast.parse(source(script))
    defined = [node.name for node in tree.body if isinstance(node, kinds)]
    assert defined == list(functions(script))


@each_script
def test_silent_ones_come_first(script):
    """A question that quotes a message is about a mistake that PyTorch notices."""
    quotes = ['"' in ast.get_docstring(f) for f in functions(script).values()]
    assert quotes == sorted(quotes) and not quotes[0]


def test_every_folder_has_its_mistakes():
    assert [script.split("/")[0] for script in MISTAKES] == FOLDERS
    assert len(ALL) >= 45
    assert len({name for _, name in ALL}) == len(ALL)
    assert all(re.fullmatch("[a-z0-9]+(_[a-z0-9]+)+", name) for _, name in ALL)


@each_script
def test_list_names_them(script, capsys):
    with pytest.raises(SystemExit) as exit:
        execute(script, argv=["--list"])
    assert not exit.value.code
    assert capsys.readouterr().out.splitlines() == list(functions(script))


@pytest.mark.parametrize("script", FLAT)
def test_name_shows_one(script, capsys):
    name = list(functions(script))[1]
    with pytest.raises(SystemExit) as exit:
        execute(script, argv=[name])
    assert not exit.value.code
    assert capsys.readouterr().out.strip() == told(script)[name]


@each_script
def test_unknown_name_is_told_which_there_are(script, capsys):
    with pytest.raises(SystemExit) as exit:
        execute(script, argv=["no_mistake"])
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(name in line for name in ["no_mistake", *functions(script)])


@pytest.mark.parametrize("optimize", [1, 2])
@pytest.mark.parametrize("script", [*MISTAKES, "advanced/static_and_dynamic.py"])
def test_without_assertions_it_says_so(script, optimize, capsys, monkeypatch):
    """python -O leaves the assertions out, and every lesson would seem to hold.

    With -OO there are no docstrings either.
    """
    monkeypatch.setattr(sys, "argv", [script])
    code = compile(source(script), script, "exec", optimize=optimize)
    with pytest.raises(SystemExit) as exit:
        exec(code, {"__name__": "__main__", "__doc__": None})  # noqa: S102
    assert exit.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "without -O" in line


@each_script
@pytest.mark.usefixtures("started_anew")
def test_runs_twice_in_one_notebook(script, capsys):
    """%run puts a function without a docstring among the variables of a script."""
    (here, *_) = [
        name
        for other, name in HERE
        if other == script
        and not re.search("num_workers|start_", text_of(script, name))
    ]
    first = source(script).index("import argparse")
    text = source(script)[first:]
    for _ in (1, 2):
        with pytest.raises(SystemExit) as exit:
            execute(script, (text, f"__nonzero__ = lambda: True\n{text}"), argv=[here])
        assert not exit.value.code
        assert "right: " in capsys.readouterr().out


@pytest.mark.parametrize("script", FLAT)
def test_outdated_lessons_are_named_one_a_line(script, capsys):
    """With every assertion turned round, every lesson is out of date."""
    tree = ast.parse(source(script))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            node.test = ast.UnaryOp(ast.Not(), node.test)
    turned = source(script), ast.unparse(ast.fix_missing_locations(tree))
    with pytest.raises(SystemExit) as exit:
        execute(script, turned, argv=[])
    assert [line.partition(":")[0] for line in exit.value.code.splitlines()] == list(
        functions(script)
    )
    assert all("out of date" in line for line in exit.value.code.splitlines())
    assert len(told(script)) == capsys.readouterr().out.count("\n\n")


ROW = re.compile(r"^\| (.+) \| (.+) \| `(\S+) (\w+)` \|$", re.MULTILINE)
FOUND = list(ROW.finditer(pages.text("README.md")))
TABLE = {match.groups()[2:]: match[1] for match in FOUND}


def test_every_mistake_is_found_by_a_symptom():
    rows = [match.groups()[2:] for match in FOUND]
    assert sorted(rows) == sorted(ALL)


@each_mistake
def test_message_in_the_table_is_the_real_one(script, name):
    """If the question quotes a message, what the symptom quotes of it is asserted."""
    if '"' in ast.get_docstring(functions(script)[name]) and "`" in TABLE[script, name]:
        quoted = re.findall("`` ?(.+?) ?``|`(.+?)`", TABLE[script, name])
        asserted = map(ast.walk, assertions(script, name))
        texts = [getattr(node, "value", None) for tree in asserted for node in tree]
        texts = [text for text in texts if isinstance(text, str)]
        assert any("".join(message) in text for message in quoted for text in texts)
