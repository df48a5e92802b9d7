"""The README taken apart: blocks, commands, the table of the ladder, links."""

import ast
import difflib
import re

from collection import ROOT, SCRIPTS, finished, source, start

README = ROOT / "README.md"
# Prints times, which mean nothing on a busy machine: its output is put in by hand.
TIMED = "tensor/gpu_speedup.py"
FENCE = re.compile(
    r"^(?:<!-- (?:needs (?P<needs>\w+)|(?P<command>[^\n]+)) -->\n)?"
    r"```(?P<kind>\w+)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
ROW = re.compile(
    r"^\| \[(\S+)\]\(\S+\) \| \[(\S+)\]\(\S+\) \| (.+) \| ([^|]+) \|$", re.MULTILINE
)


def blocks(text, kind):
    """Return the bodies of the fenced blocks of a kind, such as python or sh."""
    return [m["body"] for m in FENCE.finditer(text) if m["kind"] == kind]


def sessions(text):
    """Return {(section, device that it needs or None): [session, ...]}.

    The sessions of a list go on from one another, so that each finds the variables of
    those before it. "<!-- needs cuda -->" above a block says that it needs that device.
    """
    found = {}
    for section in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        title = section.splitlines()[0].strip("# ")
        for match in FENCE.finditer(section):
            if match["kind"] == "python" and match["body"].startswith(">>> "):
                found.setdefault((title, match["needs"]), []).append(match["body"])
    return found


def code(script):
    """Return a script as the README shows it: with its path, without its docstring."""
    text = source(script)
    end = ast.parse(text).body[0].end_lineno
    rest = "".join(text.splitlines(keepends=True)[end:]).lstrip("\n")
    return f"# Code in file {script}\n{rest}"


def script_shown(body):
    """Return the script that a python block shows, None if it shows something else."""
    shown = re.match(r"# Code in file (\S+)\n", body)
    return shown and shown[1]


def as_run(command):
    """Turn "python PATH OPTION ..." into the tuple that collection.start takes."""
    python, *words = command.split()
    assert python == "python" and words[0] in SCRIPTS, command
    return tuple(words)


def commands(text):
    """Return {command line: output shown} for all commands whose output is shown."""
    shown = {}
    for match in FENCE.finditer(text):
        if match["kind"] == "console":
            for part in re.split(r"^\$ ", match["body"], flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                shown[command] = output
        elif match["command"]:
            shown[match["command"]] = match["body"]
    return shown


def code_lines(script):
    """Return the lines of a script without docstrings, comments and blank lines."""
    text = source(script)
    lines = [re.sub(r"\s*# .*", "", line) for line in text.splitlines()]
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node) is not None:
            for number in range(node.body[0].lineno, node.body[0].end_lineno + 1):
                lines[number - 1] = ""
    return [line for line in lines if line]


def changed(script, neighbour):
    """Return how many code lines leave and how many come between two neighbours."""
    difference = list(difflib.ndiff(code_lines(neighbour), code_lines(script)))
    return tuple(sum(line.startswith(sign) for line in difference) for sign in "-+")


def rows(text):
    """Return {script: (its neighbour, what the table says of changed lines)}."""
    return {match[1]: (match[2], match[4]) for match in ROW.finditer(text)}


def in_words(script, neighbour):
    gone, come = changed(script, neighbour)
    return f"{gone} out, {come} in"


def replaced(match, group, new):
    """Return what matched, with new in place of one group."""
    start, end = (place - match.start() for place in match.span(group))
    return match[0][:start] + new + match[0][end:]


def updated(text, scripts):
    """Return the README with every script and count as it is now.

    Of the outputs, only those of the named scripts are renewed: a run on a busy machine
    would replace all times and speeds by others.
    """

    def output(command, shown):
        words = as_run(command)
        return finished(words).stdout if words[0] in scripts else shown

    def renew(match):
        body = match["body"]
        if match["kind"] == "python" and script_shown(body):
            body = code(script_shown(body))
        elif match["command"]:
            body = output(match["command"], body)
        elif match["kind"] == "console":
            body = "".join(
                f"$ {command}\n{output(command, shown)}"
                for command, shown in commands(match[0]).items()
            )
        return replaced(match, "body", body)

    def count(match):
        return replaced(match, 4, in_words(match[1], match[2]))

    for command in commands(text):
        if as_run(command)[0] in scripts:
            start(as_run(command))
    return ROW.sub(count, FENCE.sub(renew, text))


def headings(text):
    """Return the anchors that GitHub makes of the headings."""
    without_code = FENCE.sub("", text)
    titles = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return [
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles
    ]


def links(text):
    """Return the targets of all links and pictures."""
    return re.findall(r"\]\((\S+?)\)", FENCE.sub("", text))
