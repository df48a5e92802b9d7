"""The profile counts what a step does, and the trace holds all of it."""

import json
import re
import sys
from collections import Counter

import profile_training as script
import pytest
import torch
from collection import AUTOGRAD, execute

STEPS = 20


@pytest.fixture(scope="module")
def profiler():
    return script.record("cpu", STEPS)


def test_operations_are_those_of_the_step(profiler):
    """Two products forward and three backward, as x needs no gradient."""
    counts = {event.key: event.count for event in script.totals(profiler)}
    each = {"aten::mm": 5, "aten::relu": 1, "aten::sub": 1, "aten::sub_": 2}
    each |= {"aten::square": 1, "aten::threshold_backward": 1}
    each |= {"MmBackward0": 2, "ReluBackward0": 1} | dict.fromkeys(script.PARTS, 1)
    expected = {name: STEPS * count for name, count in each.items()}
    assert {name: counts[name] for name in each} == expected


def test_shares_printed_are_those_of_the_single_events(profiler, capsys):
    """The script's events are added up; here they are added up one by one."""
    parts, own_times, products = Counter(), Counter(), Counter()
    operations = 0
    for event in profiler.events():
        inside = sum(child.cpu_time_total for child in event.cpu_children)
        own_time = event.cpu_time_total - inside
        if event.name in script.PARTS:
            parts[event.name] += event.cpu_time_total
        if event.name.startswith("aten::"):
            own_times[event.name] += own_time
        if event.name == "aten::mm":
            (n, k), (_, m) = event.input_shapes
            products[f"{n} x {k} @ {k} x {m}"] += own_time
            operations += 2 * n * k * m
    assert operations == STEPS * 25_984_000, "the number on the page"

    total = own_times.total()
    expected = [(name, parts[name] / parts.total()) for name in script.PARTS]
    expected += [(name, time / total) for name, time in own_times.most_common(4)]
    expected += [(name, time / total) for name, time in products.items()]

    script.report(profiler, "cpu")
    printed = capsys.readouterr().out
    assert re.search(rf"^aten::mm +calls {5 * STEPS} ", printed, re.MULTILINE)
    pattern = r"(\S.*?) +(?:calls \d+  )?share of \w+ (\S+)"
    for line, (name, share) in zip(printed.splitlines(), expected, strict=True):
        found = re.fullmatch(pattern, line.strip())
        assert re.sub(" +", " ", found[1]) == name
        assert float(found[2]) == pytest.approx(share, abs=0.006)


def test_steps_are_those_of_the_autograd_script():
    other = execute(AUTOGRAD, argv=("--steps", "1"))
    x, y = other["x"], other["y"]
    w1, w2 = (other[name].detach().clone().requires_grad_() for name in ("w1", "w2"))
    script.train(x, y, w1, w2, steps=9)
    ten_steps = execute(AUTOGRAD, argv=("--steps", "10"))
    assert torch.equal(w1, ten_steps["w1"]) and torch.equal(w2, ten_steps["w2"])


def test_trace_holds_every_part_with_its_operations_inside(tmp_path, monkeypatch):
    path = tmp_path / "trace.json"
    monkeypatch.setattr(sys, "argv", ["profile_training.py", "--trace", str(path)])
    script.main()
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]

    def spans(name):
        found = [e for e in events if e["ph"] == "X" and e["name"] == name]
        return [(event["ts"], event["ts"] + event["dur"]) for event in found]

    for name, part, each in (
        ("aten::relu", "forward", 1),
        ("aten::threshold_backward", "backward", 1),
        ("aten::sub_", "update", 2),
    ):
        parts = spans(part)
        starts = [start for start, _ in spans(name)]
        inside = [sum(a <= start <= b for a, b in parts) for start in starts]
        assert len(parts) == 100 and inside == [1] * (100 * each)


@pytest.mark.parametrize("where", [".", "no_such_folder/trace.json"])
def test_trace_that_cannot_be_written_is_refused_before_the_work(
    where, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["profile_training.py", "--trace", where])
    monkeypatch.setattr(script, "record", lambda *_: pytest.fail("it works"))
    with pytest.raises(SystemExit) as exit:
        script.main()
    assert (exit.value.code, list(tmp_path.iterdir())) == (2, [])
    assert where in capsys.readouterr().err.splitlines()[-1]
