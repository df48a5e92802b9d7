"""Processes that share a network run at the same time, and none outlives an error."""

import copy
import functools
import importlib
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time

import forked
import pytest
import torch
from collection import ENVIRONMENT, HOGWILD, ROOT, SECONDS, finished, losses
from test_bad_input_gets_one_line import assert_one_line

sys.path.insert(0, str(ROOT / "advanced"))  # spawn hands it on to the processes
hogwild = importlib.import_module("hogwild_cnn")

LINE = re.compile(r"epoch +(\d+)  loss \S+  process (\d) of (\d)  seconds (\S+)")
RESULT = re.compile(r"processes (\d)  loss (\S+)  accuracy (\S+)")
COUNTER = re.compile(r"processes (\d)  counter (\d+) of (\d+)")


@pytest.fixture(scope="module")
def output():
    """What the script prints; the tests of the README look at the same run."""
    return finished((HOGWILD,)).stdout


def test_processes_run_at_the_same_time(output):
    """Both are in their first epoch before either is through with its last."""
    found = [match.groups() for match in LINE.finditer(output)]
    assert sorted(words[:3] for words in found) == sorted(
        (str(epoch), str(process), str(processes))
        for processes in (1, 2)
        for process in range(1, processes + 1)
        for epoch in (1, 2, 3)
    )
    ends = {words[:3]: float(words[3]) for words in found}
    first, last = ([ends[epoch, p, "2"] for p in "12"] for epoch in "13")
    assert max(first) < min(last)


def test_several_processes_learn_as_much_as_one(output):
    """The net that is tested is the parent's: it changed through shared memory."""
    (one, *alone), (two, *together) = RESULT.findall(output)
    assert (one, two) == ("1", "2")
    for loss, accuracy in (alone, together):
        assert float(loss) < losses(output)[1] / 4
        assert float(accuracy) > 0.9
    assert float(together[1]) == pytest.approx(float(alone[1]), abs=0.08)


def test_one_process_counts_right_and_two_lose_some_at_most(output):
    (alone, together) = [
        (int(counted), int(added)) for _, counted, added in COUNTER.findall(output)
    ]
    assert alone == (100_000, 100_000)
    assert 2 <= together[0] <= together[1] == 200_000


@pytest.fixture
def spawned(monkeypatch):
    """The contexts of the processes that are started; they are killed after 100 s."""
    contexts = []

    def kill():
        for context in contexts:
            for process in context.processes:
                process.kill()

    def spawn(*args, original=hogwild.mp.spawn, **options):
        contexts.append(original(*args, **options))
        return contexts[-1]

    def fork():
        raise AssertionError("fork after a threaded operation can hang")

    monkeypatch.setattr(hogwild.mp, "spawn", spawn)
    monkeypatch.setattr(os, "fork", fork)
    timer = threading.Timer(100, kill)
    timer.start()
    yield contexts
    timer.cancel()
    kill()


def task(seed=0):
    """A few images of noise, bytes (N, 3, 20, 20), and their labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (22, 3, 20, 20), generator=generator, dtype=torch.uint8)
    return images, torch.randint(10, (22,), generator=generator)


def test_one_process_does_what_plain_training_does(spawned, capfd):
    """Bit for bit, and the gradients stay in the process that has computed them."""
    images, labels = task()
    torch.manual_seed(0)
    net = hogwild.make_net()
    plain = copy.deepcopy(net)
    weights = list(plain.parameters())
    for epoch, learning_rate in ((1, 0.035), (2, 0.0175)):
        torch.manual_seed(epoch)
        for batch in torch.randperm(22).split(4):
            chosen = plain(images[batch].float()).log_softmax(1)
            loss = -chosen[range(len(batch)), labels[batch]].mean()
            for weight, grad in zip(
                weights, torch.autograd.grad(loss, weights), strict=True
            ):
                weight.data -= learning_rate * grad

    untouched = [weight.clone() for weight in net.parameters()]
    counter, seconds = hogwild.together(1, net, images, labels, 2)
    assert (counter, seconds > 0) == (100_000, True)
    assert len(LINE.findall(capfd.readouterr().out)) == 2
    for ours, theirs, old in zip(net.parameters(), weights, untouched, strict=True):
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, old)
        assert ours.is_shared()
        assert ours.grad is None


class Recorder(torch.nn.Module):
    """A network that keeps the images it is shown."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1200, 10)
        self.shown = []

    def forward(self, x):
        self.shown.append(x)
        return self.layer(x.flatten(1) / 255)


def test_processes_share_the_images_of_an_epoch(monkeypatch):
    """Each image is used once in an epoch, by one process; each has one thread."""
    images, labels = task()
    net, counter, times = Recorder(), torch.tensor(0), torch.zeros(2, 2)
    threads = []
    monkeypatch.setattr(hogwild.signal, "signal", lambda *words: None)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    for rank in (0, 1):
        together = threading.Barrier(1)
        hogwild.work(rank, net, images, labels, 2, counter, times, together)
    assert (threads, counter) == ([1, 1], 200_000)
    assert [len(x) for x in net.shown] == [4, 4, 4, 4, 4, 4, 4, 4, 2, 4, 4, 2]
    for epoch in (slice(3), slice(6, 9)), (slice(3, 6), slice(9, 12)):
        x = torch.cat([x for part in epoch for x in net.shown[part]])
        assert sorted(x.flatten(1).tolist()) == sorted(images.flatten(1).tolist())


class SecondFails(torch.nn.Module):
    """A network with which the second process fails, while the first one waits."""

    def __init__(self, file):
        super().__init__()
        self.file = file
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        try:
            os.close(os.open(self.file, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise ArithmeticError("no good") from None
        return x * self.weight


@pytest.fixture
def _forked(monkeypatch):
    """The processes are forked from one that has imported torch, which takes long."""
    if forked.CAN_FORK:
        start = functools.partial(hogwild.mp.start_processes, start_method="forkserver")
        monkeypatch.setattr(hogwild.mp, "spawn", start)


def ends_with(spawned, *arguments):
    """Train with arguments, which has to fail; return what the script exits with."""
    with pytest.raises(SystemExit) as exit:
        hogwild.together(2, *arguments)
    assert len(spawned) == 1
    return exit.value.code


def assert_none_is_alive(context):
    assert [process.is_alive() for process in context.processes] == [False, False]


@pytest.mark.usefixtures("_forked")
def test_a_process_that_raises_ends_the_others(spawned, tmp_path):
    message = ends_with(spawned, SecondFails(str(tmp_path / "first")), *task(), 1)
    assert message.startswith("error: -- Process ")
    assert message.endswith("ArithmeticError: no good")
    assert_none_is_alive(spawned[0])


@pytest.fixture
def started(spawned, monkeypatch):
    """A list: what is put there is called with the context of the new processes."""
    calls = []

    def spawn(*args, original=hogwild.mp.spawn, **options):
        # Processes that are still importing would answer Ctrl-C with a traceback.
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        context = original(*args, **options)
        for call in calls:
            call(context)
        return context

    monkeypatch.setattr(hogwild.mp, "spawn", spawn)
    return calls


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.usefixtures("_forked")
def test_a_process_that_is_killed_ends_the_others(spawned, started):
    started.append(lambda context: os.kill(context.pids()[1], signal.SIGKILL))
    message = ends_with(spawned, hogwild.make_net(), *task(), 1)
    assert message == "error: process 1 terminated with signal SIGKILL"
    assert_none_is_alive(spawned[0])


@pytest.fixture
def _ctrl_c():
    """Ctrl-C is heard, though a program in the background is started deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_forked", "_ctrl_c")
def test_ctrl_c_ends_all(spawned, started):
    """The processes are daemons, which end when the one that has started them does."""

    def interrupt(context):
        context.join = lambda: signal.raise_signal(signal.SIGINT) or "not interrupted"

    started.append(interrupt)
    assert ends_with(spawned, hogwild.make_net(), *task(), 1) == 130
    assert all(process.daemon for process in spawned[0].processes)


@pytest.fixture
def _sigterm():
    """What the script does about SIGTERM is undone: this process is another's."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_sigterm")
@pytest.mark.parametrize("drawing, reason", [(False, "No such file"), (True, "no ink")])
def test_images_that_nobody_draws_are_one_line(
    drawing, reason, tmp_path, monkeypatch, capfd
):
    """The script is looked for beside the file, wherever a link to it lies."""
    for folder in ("advanced", "data", "far/away", "temporary"):
        (tmp_path / folder).mkdir(parents=True)
    script = shutil.copy(ROOT / HOGWILD, tmp_path / "advanced")
    draw = tmp_path / "data" / "draw_images.py"
    if drawing:
        draw.write_text("raise SystemExit('no ink')")
    link = tmp_path / "far/away/link.py"
    try:
        link.symlink_to(script)
    except OSError:
        pytest.skip("only an administrator may make links")
    monkeypatch.setattr(sys, "argv", [str(link)])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(link), run_name="__main__")
    assert exit.value.code == 2
    error = capfd.readouterr().err
    assert_one_line(error, f"{draw} has drawn no images: ")
    assert reason in error
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_sigterm_takes_the_drawn_images_along(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-W", "error", ROOT / HOGWILD],
        env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        limit = time.monotonic() + SECONDS
        while not any(tmp_path.rglob("*.png")) and time.monotonic() < limit:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.terminate()
        output, errors = process.communicate(timeout=SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, errors) == (143, ""), output
    assert list(tmp_path.iterdir()) == []
