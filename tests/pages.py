"""The pages taken apart: code, commands and outputs, sessions, the ladder, links.

A line "<!-- ... -->" above a block can say these things, with commas between:

    needs cuda      the block is checked only where there is such a device, such a
                    package (needs triton) or such a system (needs linux)
    python PATH     the block below is what this command prints
    measured        its numbers are those of one machine, and are not compared
    within 5%       they differ that much between machines, but for the step of a line
    in any order    so do its lines

An output may leave lines out: a line "..." stands for any number of them.
"""

import ast
import difflib
import doctest
import functools
import importlib.util
import io
import math
import re
import sys
import textwrap
from dataclasses import dataclass

import torch
from collection import DEVICES, FOLDERS, ROOT, SCRIPTS, run, source

PAGES = [
    path.relative_to(ROOT).as_posix()
    for folder in [".", *FOLDERS, "tests"]
    for path in sorted((ROOT / folder).glob("*.md"))
]
MISTAKES = [page for page in PAGES if page.endswith("/common_mistakes.md")]
FENCE = re.compile(
    r"^(?:<!-- (?P<marks>[^\n]+) -->\n)?```(?P<kind>\w+)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# | [script](its section) | the one new idea | [-12 +8](the script beside it) |
ROW = re.compile(
    r"^\| \[(?P<script>\S+\.py)\]\((?P<section>\S+)\) \| (?P<idea>.+) "
    r"\| (?:\[(?P<count>\S+ \S+)\]\((?P<neighbour>\S+)\) )?\|$",
    re.MULTILINE,
)
NUMBER = re.compile(r"[+-]?\b\d+(?:\.\d+)?(?:e[+-]\d+)?\b")


class PageError(Exception):
    """Something on a page that cannot be checked or renewed; says what to do."""


@functools.cache
def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


def target(page, link):
    """Return where a link on a page leads: a path from the root, and an anchor."""
    path, _, anchor = link.partition("#")
    if not path:
        return page, anchor
    place = (ROOT / page).parent / path
    return place.resolve().relative_to(ROOT).as_posix(), anchor


# Code


def whole(script):
    """Return the script without its docstring."""
    end = ast.parse(source(script)).body[0].end_lineno
    lines = source(script).splitlines(keepends=True)[end:]
    return "".join(lines).lstrip("\n")


def contains(script, excerpt):
    """Whether the lines of an excerpt follow one another in the script.

    An excerpt from within a function or a loop may be moved to the left.
    """
    lines = source(script).splitlines(keepends=True)
    count = len(excerpt.splitlines())
    starts = range(len(lines) - count + 1)
    parts = ("".join(lines[start:][:count]) for start in starts)
    return any(excerpt in (part, textwrap.dedent(part)) for part in parts)


def renewed_excerpt(page, script, excerpt):
    """Return the excerpt as the script has it now, from its first line to its last."""
    if contains(script, excerpt):
        return excerpt
    lines = source(script).splitlines(keepends=True)
    shown = excerpt.splitlines()
    begins = [i for i, line in enumerate(lines) if line.strip() == shown[0].strip()]
    if len(begins) != 1:
        raise PageError(
            f"{page}: the first line of an excerpt is {len(begins)} times in {script}: "
            f"{shown[0].strip()!r}. Begin the excerpt with a line that is there once."
        )
    for end in range(begins[0], len(lines)):
        if lines[end].strip() == shown[-1].strip():
            part = "".join(lines[begins[0] : end + 1])
            moved = not shown[0].startswith(" ")
            return textwrap.dedent(part) if moved else part
    raise PageError(
        f"{page}: the last line of an excerpt is no longer in {script}: "
        f"{shown[-1].strip()!r}. Put another last line there, then renew the page."
    )


def code_shown(body):
    """Return (script, whether all of it is shown, code) of a python block, or None."""
    head = re.match(r"# (Code in|In) file (\S+)\n", body)
    return head and (head[2], head[1] == "Code in", body[head.end() :])


def renewed_code(page, body):
    """Return the body of a python block, with its code as it is in the file now."""
    if not code_shown(body):
        return body
    script, all_of_it, code = code_shown(body)
    if script not in SCRIPTS:
        raise PageError(f"{page} shows code of {script}, which is not there.")
    new = whole(script) if all_of_it else renewed_excerpt(page, script, code)
    return body.removesuffix(code) + new


# Commands and outputs


@dataclass(frozen=True)
class Output:
    """What a page shows of a command: (script, option, ...)."""

    page: str
    command: tuple
    marks: tuple
    shown: str


def as_command(page, line):
    """Turn "python PATH OPTION ..." into (PATH, OPTION, ...)."""
    python, *words = line.split()
    if python != "python" or words[0] not in SCRIPTS:
        raise PageError(f"{page}: {line!r} is not a command that runs a script.")
    return tuple(words)


def split_marks(match):
    return tuple(re.split(r", *", match["marks"])) if match["marks"] else ()


def outputs_in(page, match):
    """Return [(command line, its output)] for a block, as a match of FENCE."""
    if match["kind"] == "console":
        parts = re.split(r"^\$ ", match["body"], flags=re.MULTILINE)[1:]
        return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]
    lines = [mark for mark in split_marks(match) if mark.startswith("python ")]
    return [(line, match["body"]) for line in lines]


@functools.cache
def outputs():
    """Return every Output that a page shows."""
    return [
        Output(page, as_command(page, line), split_marks(match), shown)
        for page in PAGES
        for match in FENCE.finditer(text(page))
        for line, shown in outputs_in(page, match)
    ]


def close(shown, real, first):
    """Whether two losses differ by rounding alone, given the first loss of the run."""
    distance = abs(math.sqrt(shown) - math.sqrt(real))
    return distance <= 64 * 2**-23 * math.sqrt(first) + 0.005 * math.sqrt(real)


def without_numbers(line):
    return " ".join(NUMBER.sub("0", line).split())


def same_line(shown, real, marks, first):
    """Whether a line shown is one that was printed, up to what the marks allow.

    first has the first number of the run after each word, and is added to.
    """
    if without_numbers(shown) != without_numbers(real):
        return False
    if "measured" in marks:
        return True
    within = [float(mark[7:-1]) / 100 for mark in marks if mark.startswith("within ")]
    words = NUMBER.split(real)
    numbers = zip(NUMBER.findall(shown), NUMBER.findall(real), words, words[1:])
    for place, (one, other, before, after) in enumerate(numbers):
        # The first number of a line, if it is a whole one, is that of a step.
        exact = "." not in other and not (within and (place or after[:1] == "%"))
        one, other = float(one), float(other)
        begin = first.setdefault(before.strip(), abs(other))
        if exact or one * other <= 0:
            good = one == other
        elif within:
            good = abs(one - other) <= within[0] * abs(other)
        else:
            good = close(abs(one), abs(other), begin)
        if not good:
            return False
    return True


def first_difference(shown, real, marks):
    """Return a sentence about the first line shown that was not printed, or None."""
    shown, real = shown.splitlines(), real.splitlines()
    if "in any order" in marks:
        shown, real = sorted(shown), sorted(real)
    first = {}
    place, left_out = 0, False
    for line in shown:
        if line == "...":
            left_out = True
            continue
        rest = real[place:] if left_out else real[place : place + 1]
        found = [i for i, r in enumerate(rest) if same_line(line, r, marks, first)]
        if not found:
            return f"shown is {line!r}, printed {(rest or ['nothing more'])[0]!r}"
        place, left_out = place + found[0] + 1, False
    if place < len(real) and not left_out:
        return f"printed, but not shown, is {real[place]!r}"
    return None


# The ladder


def code_lines(script):
    """Return the lines of a script without docstrings, comments and blank lines."""
    lines = [re.sub(r"\s*# .*", "", line) for line in source(script).splitlines()]
    for node in ast.walk(ast.parse(source(script))):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node) is not None:
            for number in range(node.body[0].lineno, node.body[0].end_lineno + 1):
                lines[number - 1] = ""
    return [line for line in lines if line]


def changed(script, neighbour):
    """Return how many code lines leave and come from a neighbour: "-12 +8"."""
    difference = list(difflib.ndiff(code_lines(neighbour), code_lines(script)))
    gone, come = (sum(line.startswith(sign) for line in difference) for sign in "-+")
    return f"-{gone} +{come}"


def ladder():
    """Return {script: (changed lines, neighbour)}, with (None, None) for the first."""
    return {
        match["script"]: (match["count"], match["neighbour"])
        for match in ROW.finditer(text("README.md"))
    }


# Sessions


@dataclass
class Section:
    """A part of a page, with its blocks of >>> lines as (line number, block).

    They go on from one another, so that each finds the variables of those before it.
    """

    page: str
    title: str
    needs: tuple
    line: int
    text: str
    sessions: list


@functools.cache
def sections(page):
    """Return the sections of a page; of a page of mistakes, its lessons.

    The sessions above the first heading, which import what all others use, come first
    in every section. Sessions that need something make a section of their own.
    """
    depth = 3 if page in MISTAKES else 2
    heading = re.compile(rf"^#{{2,{depth}}} (.+)\n", re.MULTILINE)
    starts = [match.start() for match in heading.finditer(text(page))]
    shared, found = [], []
    for start, end in zip([0, *starts], [*starts, len(text(page))]):
        part = text(page)[start:end]
        line = text(page).count("\n", 0, start)
        sessions = {(): []}
        for match in FENCE.finditer(part):
            if match["kind"] == "python" and match["body"].startswith(">>> "):
                needs = needed(split_marks(match))
                place = line + part.count("\n", 0, match.start("body"))
                sessions.setdefault(needs, []).append((place, match["body"]))
        if not start:
            shared = sessions[()]
        elif part.startswith("#" * depth + " "):
            title = heading.match(part)[1]
            for needs, own in sessions.items():
                section = Section(page, title, needs, line, part, own and shared + own)
                found.append(section)
    return found


def needed(marks):
    return tuple(mark[6:] for mark in marks if mark.startswith("needs "))


def missing(needs):
    """Return those of the things needed that are not here."""
    return [
        need
        for need in needs
        if not (
            getattr(torch, need).is_available()
            if need in DEVICES
            else sys.platform == need or importlib.util.find_spec(need)
        )
    ]


def doctests(section):
    """Return a section's sessions, taken apart by doctest into examples."""
    parse = doctest.DocTestParser().get_doctest
    return [
        parse(body, {}, section.title, section.page, line)
        for line, body in section.sessions
    ]


def failures(tests):
    """Run what doctests() returned and return what doctest says of it, or ""."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(verbose=False, optionflags=flags)
    report = io.StringIO()
    variables = {"__name__": "__main__"}
    for test in tests:
        test.globs = variables
        runner.run(test, out=report.write, clear_globs=False)
    return report.getvalue()


# Links


def anchor(title):
    """Return the anchor that GitHub makes of a heading."""
    title = re.sub("`` (.+?) ``", r"\1", title.lower())  # code that has a backtick
    return re.sub(r"[^\w\- ]", "", title).replace(" ", "-")


def anchors(page):
    """Return the anchors of all headings of a page."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text(page)), re.MULTILINE)
    return [anchor(title) for title in titles]


def links(page):
    """Return the targets of all links and pictures of a page."""
    return re.findall(r"\]\((\S+?)\)", FENCE.sub("", text(page)))


# Renewal


def replaced(match, group, new):
    """Return what matched, with new in place of one group."""
    start, end = (place - match.start() for place in match.span(group))
    return match[0][:start] + new + match[0][end:]


def renewed(page, names=()):
    """Return the page with what is named as it is now; without names, all its code.

    The name of a page stands for its code, its counts, and its outputs but for those
    with measured numbers, which a busy machine would replace by others, and for those
    that differ by no more than the page allows. The name of a script stands for its
    code and all its outputs.
    """

    def new_code(body):
        shown = code_shown(body)
        if shown and (not names or page in names or shown[0] in names):
            return renewed_code(page, body)
        return body

    def new_output(line, shown, marks):
        command = as_command(page, line)
        if command[0] not in names and (page not in names or "measured" in marks):
            return shown
        if "...\n" in shown.splitlines(keepends=True):
            raise PageError(
                f"{page}: lines are left out of what {line!r} prints. Renew it by hand."
            )
        printed = run(*command).stdout
        if command[0] not in names and first_difference(shown, printed, marks) is None:
            return shown
        return printed

    def new_block(match):
        marks, body = split_marks(match), match["body"]
        shown = outputs_in(page, match)
        if match["kind"] == "python":
            body = new_code(body)
        elif match["kind"] == "console":
            body = "".join(
                f"$ {line}\n{new_output(line, output, marks)}" for line, output in shown
            )
        elif shown:
            body = new_output(*shown[0], marks)
        return replaced(match, "body", body)

    def new_count(match):
        named = not names or page in names or match["script"] in names
        if match["count"] is None or not named:
            return match[0]
        count = changed(match["script"], match["neighbour"])
        return replaced(match, "count", count)

    return ROW.sub(new_count, FENCE.sub(new_block, text(page)))
