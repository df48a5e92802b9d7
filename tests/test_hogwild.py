"""Hogwild: processes train one model at the same time, and none outlives an error."""

import contextlib
import copy
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import hogwild_cnn
import pytest
import torch
from collection import ENVIRONMENT, ROOT, SECONDS, run, run_in
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

HOGWILD = "advanced/hogwild_cnn.py"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_model_learns_in_any_number_of_processes(processes):
    """It is the parent's model that is tested: it changed through shared memory."""
    options = [] if processes == "2" else ["--processes", processes]
    output = run(HOGWILD, *options).stdout
    lines = re.findall(r"epoch +(\d+)  loss (\S+)  process (\d)", output)
    ranks = range(1, int(processes) + 1)
    assert sorted((int(epoch), int(rank)) for epoch, _, rank in lines) == [
        (epoch, rank) for epoch in (1, 2, 3) for rank in ranks
    ]
    # Ten classes: chance gives 0.1. Runs with two processes differ: 0.98 to 0.99.
    (accuracy,) = re.findall(r"accuracy (\S+)", output)
    assert float(accuracy) > 0.8


@pytest.fixture
def _time_limit():
    """Processes that hang are killed, which train_together() reports as an error."""

    def kill():
        for process in multiprocessing.active_children():
            process.kill()

    timer = threading.Timer(SECONDS, kill)
    timer.start()
    yield
    timer.cancel()
    kill()


def images_and_labels():
    """A few images of noise, (22, 3, 20, 20), and their labels (22,)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (22, 3, 20, 20), generator=generator).float()
    return images, torch.randint(10, (22,), generator=generator)


@pytest.mark.usefixtures("_time_limit")
def test_one_process_does_what_plain_training_does(capfd):
    """Bit for bit, and the gradients stay in the process that has computed them."""
    images, labels = images_and_labels()
    torch.manual_seed(0)
    model = hogwild_cnn.make_model()
    plain = copy.deepcopy(model)
    weights = list(plain.parameters())
    for epoch, learning_rate in ((1, 0.035), (2, 0.0175)):
        torch.manual_seed(epoch)
        for batch in torch.randperm(22).split(4):
            chosen = plain(images[batch]).log_softmax(1)
            loss = -chosen[range(len(batch)), labels[batch]].mean()
            grads = torch.autograd.grad(loss, weights)
            for weight, grad in zip(weights, grads, strict=True):
                weight.data -= learning_rate * grad

    model.share_memory()
    hogwild_cnn.train_together(1, model, images, labels, 2)
    assert capfd.readouterr().out.count("process 1") == 2
    for ours, theirs in zip(model.parameters(), weights, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.grad is None


class Recorder(torch.nn.Module):
    """A model that keeps the images that it is shown."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1200, 10)
        self.shown = []

    def forward(self, x):
        self.shown.extend(x.flatten(1).tolist())
        return self.linear(x.flatten(1) / 255)


def test_each_image_is_used_once_in_an_epoch_by_one_process():
    images, labels = images_and_labels()
    shown = []
    for rank in (0, 1):
        model = Recorder()
        hogwild_cnn.train(rank, 2, model, images, labels, 1, threading.Barrier(1))
        assert len(model.shown) in (10, 12)  # batches of 4, 4, 4 and of 4, 4, 2
        shown += model.shown
    assert sorted(shown) == sorted(images.flatten(1).tolist())


class Meeting(torch.nn.Module):
    """A model that makes each process wait, at each step, for the other one."""

    def __init__(self, barrier):
        super().__init__()
        self.linear = torch.nn.Linear(1200, 10)
        self.barrier = barrier

    def forward(self, x):
        self.barrier.wait()
        return self.linear(x.flatten(1) / 255)


@pytest.mark.usefixtures("_time_limit")
def test_processes_train_at_the_same_time():
    barrier = multiprocessing.get_context("spawn").Barrier(2, timeout=SECONDS)
    model = Meeting(barrier).share_memory()
    hogwild_cnn.train_together(2, model, *images_and_labels(), 1)


class FailsInOne(torch.nn.Module):
    """A model with which one process fails, while the other one would take an hour."""

    def __init__(self, file, killed):
        super().__init__()
        self.file, self.killed = file, killed

    def forward(self, x):
        try:
            os.close(os.open(self.file, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ArithmeticError("no good") from None
        time.sleep(3600)


@pytest.mark.parametrize(
    "killed, error, message",
    [
        (False, ProcessRaisedException, "ArithmeticError: no good"),
        (True, ProcessExitedException, "signal SIGKILL"),
    ],
)
@pytest.mark.usefixtures("_time_limit")
def test_a_process_that_fails_ends_the_others(killed, error, message, tmp_path):
    model = FailsInOne(str(tmp_path / "the first one was here"), killed)
    with pytest.raises(error, match=message):
        hogwild_cnn.train_together(2, model, *images_and_labels(), 1)
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("moment", ["drawing", "training"])
@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", -2)])
def test_a_signal_leaves_nothing_behind(name, status, moment, tmp_path):
    """SIGTERM comes to the script alone, Ctrl-C (SIGINT) to all of its processes."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", ROOT / HOGWILD, "--epochs", "1000"],
        env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    timer = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    try:
        if moment == "training":
            assert process.stdout.readline().startswith("epoch")
        while moment == "drawing" and not any(tmp_path.rglob("*.png")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        to = os.kill if name == "SIGTERM" else os.killpg
        to(process.pid, getattr(signal, name))
        # Until all processes have ended, as each of them could write.
        _, errors = process.communicate()
        assert timer.is_alive(), "some of the processes were left"
    finally:
        timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == status, errors
    assert errors == "" or name == "SIGINT"
    assert list(tmp_path.iterdir()) == []


def test_one_line_says_that_draw_images_is_missing(tmp_path):
    script = shutil.copy(ROOT / HOGWILD, tmp_path)
    done = run_in(tmp_path, script)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "draw_images.py" in line and "No such file" in line
