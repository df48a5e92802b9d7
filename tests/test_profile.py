"""The profile counts what a step does, and the trace holds all of it."""

import json
from collections import Counter

import profile_training as script
import pytest
import torch
from collection import AUTOGRAD, execute, run_in

PATH = "advanced/profile_training.py"
STEPS = 20


@pytest.fixture(scope="module")
def profiler():
    return script.record("cpu", STEPS)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A run with --trace: what it printed, and the events of the trace."""
    folder = tmp_path_factory.mktemp("trace")
    done = run_in(folder, PATH, "--trace", "trace.json")
    assert (done.returncode, done.stderr) == (0, "")
    trace = json.loads((folder / "trace.json").read_text(encoding="utf-8"))
    return done.stdout.splitlines(), trace["traceEvents"]


def test_operations_are_those_of_the_step(profiler):
    """Two products forward and three backward, as x needs no gradient."""
    counts = {event.key: event.count for event in script.totals(profiler)}
    each = {"aten::mm": 5, "aten::relu": 1, "aten::sub": 1, "aten::sub_": 2}
    each |= {"aten::square": 1, "aten::threshold_backward": 1}
    each |= {"MmBackward0": 2, "ReluBackward0": 1} | dict.fromkeys(script.PARTS, 1)
    expected = {name: STEPS * count for name, count in each.items()}
    assert {name: counts[name] for name in each} == expected


def test_products_have_the_size_that_the_page_counts(profiler):
    total = 0
    for event in script.totals(profiler, by_shape=True):
        if event.key == "aten::mm":
            (n, k), (_, m) = event.input_shapes
            total += 2 * n * k * m * event.count
    assert total == STEPS * 25_984_000


def test_times_are_those_of_the_single_events(profiler):
    """The script's events are added up; here they are added up one by one."""
    times, own_times = Counter(), Counter()
    for event in profiler.events():
        inside = sum(child.cpu_time_total for child in event.cpu_children)
        times[event.name] += event.cpu_time_total
        own_times[event.name] += event.cpu_time_total - inside
    for event in script.totals(profiler):
        assert event.cpu_time_total == pytest.approx(times[event.key])
        # The trace has microseconds with three decimals.
        own = pytest.approx(own_times[event.key], abs=0.001 * event.count)
        assert event.self_cpu_time_total == own


def test_shares_printed_are_those_of_own_times(profiler, capsys):
    script.report(profiler, "cpu")
    printed = capsys.readouterr().out.splitlines()[3:7]
    own_times = Counter()
    for event in profiler.events():
        if event.name.startswith("aten::"):
            inside = sum(child.cpu_time_total for child in event.cpu_children)
            own_times[event.name] += event.cpu_time_total - inside
    for line, (name, time) in zip(printed, own_times.most_common(4), strict=True):
        share = pytest.approx(time / own_times.total(), abs=0.006)
        assert line.split()[0] == name and float(line.split()[-1]) == share


def test_what_is_printed_are_parts_operations_and_products(traced):
    lines, _ = traced
    parts, operations, products = lines[:3], lines[3:7], lines[7:]
    assert [line.split()[0] for line in parts] == script.PARTS
    shares = [[float(line.split()[-1]) for line in group] for group in (parts, lines)]
    assert sum(shares[0]) == pytest.approx(1, abs=0.02), "three rounded shares"
    assert shares[1][3:7] == sorted(shares[1][3:7], reverse=True)
    (mm,) = [line for line in operations if line.startswith("aten::mm ")]
    assert "calls 500 " in mm
    shapes = [line.partition("  share")[0].replace(" ", "") for line in products]
    assert shapes == [
        "64x1000@1000x100",
        "64x100@100x10",
        "100x64@64x10",
        "64x10@10x100",
        "1000x64@64x100",
    ]
    together = sum(shares[1][7:])
    assert together == pytest.approx(float(mm.split()[-1]), abs=0.04), "rounded shares"


def test_steps_are_those_of_the_autograd_script():
    other = execute(AUTOGRAD, argv=("--steps", "1"))
    x, y = other["x"], other["y"]
    w1, w2 = (other[name].detach().clone().requires_grad_() for name in ("w1", "w2"))
    script.train(x, y, w1, w2, steps=9)
    ten_steps = execute(AUTOGRAD, argv=("--steps", "10"))
    assert torch.equal(w1, ten_steps["w1"]) and torch.equal(w2, ten_steps["w2"])


def test_trace_holds_every_part_with_its_operations_inside(traced):
    trace = [event for event in traced[1] if event["ph"] == "X"]

    def spans(name):
        found = [event for event in trace if event["name"] == name]
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
def test_trace_that_cannot_be_written_is_refused_before_the_work(where, tmp_path):
    done = run_in(tmp_path, PATH, "--trace", where)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert where in done.stderr.splitlines()[-1]


def test_messages_of_the_profiler_still_have_to_be_turned_off(tmp_path):
    """If this fails, the line about KINETO_LOG_LEVEL in the script may go."""
    code = "import torch\nwith torch.autograd.profiler.profile(): torch.ones(1)\n"
    (tmp_path / "unsilenced.py").write_text(code, encoding="utf-8")
    done = run_in(tmp_path, tmp_path / "unsilenced.py", KINETO_LOG_LEVEL="0")
    assert "profiler_start" in done.stderr
