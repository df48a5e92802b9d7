"""The profile counts what a step does, and the trace holds all of it."""

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
from collections import Counter, defaultdict

import pytest
import torch
from collection import AUTOGRAD, ENVIRONMENT, PROFILE, SECONDS, execute

PARTS = ["forward", "backward", "update"]
STEPS = 100


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A run: the variables of the script, its trace, its lines."""
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    with contextlib.redirect_stdout(io.StringIO()) as output:
        variables = execute(PROFILE, argv=("--trace", str(path)))
    trace = json.loads(path.read_text(encoding="utf-8"))
    return variables, trace, output.getvalue().splitlines()


@pytest.fixture(scope="module")
def events(traced):
    """The single events that the profiler noted."""
    return traced[0]["profiler"].events()


@pytest.fixture(scope="module")
def table(traced):
    """The lines as {(name, shapes ...): (calls, share)}."""
    rows = [line.split() for line in traced[2]]
    for row in rows:
        assert row[-4::2] == ["calls", "share"]
    return {tuple(row[:-4]): (int(row[-3]), float(row[-1])) for row in rows}


def test_table_shows_three_parts_and_the_five_dearest_operations(table):
    assert list(table)[:3] == [(part,) for part in PARTS]
    assert [calls for calls, _ in table.values()][:3] == [STEPS] * 3
    shares = [share for _, share in table.values()]
    assert sum(shares[:3]) == pytest.approx(1, abs=0.02)
    assert len(shares) == 8 and shares[3:] == sorted(shares[3:], reverse=True)
    assert 0.5 < sum(shares[3:]) <= 1.02


def test_dearest_are_the_products_with_x(events):
    """By the median of all calls, so that other programs do not count."""
    times = defaultdict(list)
    for event in events:
        if event.name.startswith("aten::"):
            shapes = tuple(map(tuple, event.input_shapes))
            times[event.name, shapes].append(event.self_cpu_time_total)
    dearest = sorted(times, key=lambda key: -statistics.median(times[key]))
    forward, backward = ((64, 1000), (1000, 100)), ((1000, 64), (64, 100))
    assert set(dearest[:2]) == {("aten::mm", forward), ("aten::mm", backward)}


def test_shares_are_those_of_the_single_events(traced, events):
    """The table adds up events; here they are added up one by one."""
    times = Counter()
    for event in events:
        if event.name.startswith("aten::"):
            inside = sum(child.cpu_time_total for child in event.cpu_children)
            shapes = tuple(map(tuple, event.input_shapes))
            times[event.name, shapes] += event.cpu_time_total - inside
    rows = traced[0]["rows"][:5]
    for row, (key, time) in zip(rows, times.most_common(5), strict=True):
        assert (row.key, tuple(map(tuple, row.input_shapes))) == key
        share = row.self_cpu_time_total / traced[0]["total"]
        assert share == pytest.approx(time / times.total(), rel=1e-3)


def test_operations_are_those_of_the_step_a_hundred_times(events):
    """Two products forward and three backward, as x needs no gradient."""
    counts = Counter(event.name for event in events)
    each = {"aten::mm": 5, "aten::relu": 1, "aten::sub": 1, "aten::sub_": 2}
    each |= {"aten::square": 1, "aten::threshold_backward": 1}
    each |= {"MmBackward0": 2, "ReluBackward0": 1} | dict.fromkeys(PARTS, 1)
    assert {name: counts[name] for name in each} == {
        name: STEPS * count for name, count in each.items()
    }


def test_products_have_the_size_that_the_readme_counts(events):
    total = 0
    for event in events:
        if event.name == "aten::mm":
            (n, k), (_, m) = event.input_shapes
            total += 2 * n * k * m
    assert total == STEPS * 25_984_000


def test_steps_are_those_of_the_autograd_script(traced):
    """Ten before the profile, a hundred in it; the weights are the same to the bit."""
    other = execute(AUTOGRAD, argv=("--steps", str(10 + STEPS)))
    assert torch.equal(traced[0]["w1"], other["w1"])
    assert torch.equal(traced[0]["w2"], other["w2"])


def test_trace_holds_every_part_with_its_operations_inside(traced):
    """Its times are in microseconds."""
    trace = [event for event in traced[1]["traceEvents"] if event["ph"] == "X"]
    parts = {
        part: [
            (event["ts"], event["ts"] + event["dur"])
            for event in trace
            if event["name"] == part
        ]
        for part in PARTS
    }
    assert {part: len(times) for part, times in parts.items()} == dict.fromkeys(
        PARTS, STEPS
    )
    for name, part, each in (
        ("aten::relu", "forward", 1),
        ("aten::threshold_backward", "backward", 1),
        ("aten::sub_", "update", 2),
    ):
        starts = [event["ts"] for event in trace if event["name"] == name]
        inside = [sum(a <= ts <= b for a, b in parts[part]) for ts in starts]
        assert inside == [1] * (STEPS * each)


@pytest.mark.parametrize("where", [".", "no_such_folder/trace.json"])
def test_trace_that_cannot_be_written_is_refused_before_the_work(
    where, capfd, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        execute(PROFILE, argv=("--trace", where))
    out, err = capfd.readouterr()
    assert (exit.value.code, out, os.listdir()) == (2, "", [])
    assert len(err.splitlines()) == 1 and f"cannot write {where}" in err


def test_messages_of_the_profiler_still_have_to_be_turned_off():
    """If this fails, the line about KINETO_LOG_LEVEL in the script may go."""
    code = "import torch\nwith torch.autograd.profiler.profile(): torch.ones(1)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert "profiler_start" in done.stderr
