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
import time
from unittest import mock

import hogwild_cnn
import pytest
import torch
from collection import ENVIRONMENT, ROOT, run, run_in
from torch import nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

HOGWILD = "advanced/hogwild_cnn.py"
pytestmark = pytest.mark.timeout(180)  # processes may hang


def images_and_labels(count):
    """Images of noise, (count, 3, 20, 20), and their labels (count,).

    The number of an image is in its corner.
    """
    torch.manual_seed(0)
    images = torch.randint(256, (count, 3, 20, 20)).float()
    images[:, 0, 0, 0] = torch.arange(count)
    return images, torch.randint(10, (count,))


@pytest.mark.parametrize("script", [HOGWILD])
def test_the_model_learns_in_two_processes(script):
    """It is the parent's model that is tested: it changed through shared memory."""
    output = run(script).stdout
    lines = re.findall(r"epoch +(\d)  loss \S+  process (\d)", output)
    assert sorted(lines) == [(epoch, rank) for epoch in "123" for rank in "12"]
    # Ten classes: chance gives 0.1. Runs with two processes differ: 0.98 to 0.99.
    (accuracy,) = re.findall(r"accuracy (\S+)", output)
    assert float(accuracy) > 0.8


def test_loss_and_accuracy_in_the_end_are_those_on_other_images(monkeypatch, capsys):
    images, labels = images_and_labels(2000)
    given = []
    monkeypatch.setattr(hogwild_cnn, "draw_digits", lambda: (images, labels))
    monkeypatch.setattr(hogwild_cnn, "train_together", lambda *args: given.extend(args))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["hogwild_cnn.py"])
    hogwild_cnn.main()

    _, model, seen, _, _ = given
    others = sorted(set(range(2000)) - set(seen[:, 0, 0, 0].int().tolist()))
    assert len(others) == 400
    logits = model(images[others]).detach()
    loss = nn.functional.cross_entropy(logits, labels[others])
    accuracy = (logits.argmax(1) == labels[others]).sum() / 400
    printed = re.findall(r"(?:loss|accuracy) (\S+)", capsys.readouterr().out)
    expected = [loss.item(), accuracy.item()]
    assert [float(number) for number in printed] == pytest.approx(expected, rel=1e-3)


def test_one_process_does_what_plain_training_does(capfd):
    """Bit for bit, and the gradients stay in the process that has computed them."""
    images, labels = images_and_labels(22)
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


class Watched(nn.Module):
    """A model that calls a function with the images, (N, 3, 20, 20), at each step."""

    def __init__(self, function, *args):
        super().__init__()
        self.linear = nn.Linear(1200, 10)
        self.function, self.args = function, args

    def forward(self, x):
        self.function(*self.args, x)
        return self.linear(x.flatten(1) / 255)


def test_each_image_is_used_once_in_an_epoch_after_all_have_started():
    shown, barrier = [], mock.Mock()
    barrier.wait.side_effect = lambda: shown.append("all have started")
    model = Watched(lambda x: shown.extend(x[:, 0, 0, 0].tolist()))
    for rank in (0, 1):
        hogwild_cnn.train(rank, 2, model, *images_and_labels(22), 1, barrier)
    # The first process has batches of 4, 4 and 4, the second one of 4, 4 and 2.
    assert shown.pop(13) == shown.pop(0) == "all have started"
    assert sorted(shown) == list(range(22))


def fail_in_one(file, killed, x):
    """Fail in one process, while the other one is still in its step."""
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ArithmeticError("no good") from None
    time.sleep(360)


@pytest.mark.parametrize(
    "killed, error, message",
    [
        (False, ProcessRaisedException, "ArithmeticError: no good"),
        (True, ProcessExitedException, "signal SIGKILL"),
    ],
)
def test_a_process_that_fails_ends_the_others(killed, error, message, tmp_path):
    """It fails while the other one is in a step, as they train at the same time."""
    model = Watched(fail_in_one, str(tmp_path / "the first one was here"), killed)
    before = multiprocessing.active_children()
    with pytest.raises(error, match=message):
        hogwild_cnn.train_together(2, model, *images_and_labels(22), 1)
    assert multiprocessing.active_children() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    "moment, name, status",
    [
        ("drawing", "SIGTERM", 143),
        ("training", "SIGTERM", 143),
        ("training", "SIGINT", -signal.SIGINT),
    ],
)
def test_a_signal_leaves_nothing_behind(moment, name, status, tmp_path):
    """SIGTERM comes to the script alone, Ctrl-C (SIGINT) to all of its processes."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", ROOT / HOGWILD, "--epochs", "1000"],
        env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        if moment == "training":
            assert process.stdout.readline().startswith("epoch")
        while moment == "drawing" and not any(tmp_path.rglob("*.png")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        to = os.kill if name == "SIGTERM" else os.killpg
        to(process.pid, getattr(signal, name))
        # Until all processes have ended, as each of them could write.
        _, errors = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == status, errors
    assert errors == "" or name == "SIGINT"
    # On Ctrl-C, PyTorch 2.15 writes what its processes were doing, and leaves it there.
    left = [file.name for file in tmp_path.iterdir()]
    assert [name for name in left if not name.startswith("pytorch-errorfile-")] == []


def test_one_line_says_that_draw_images_is_missing(tmp_path):
    script = shutil.copy(ROOT / HOGWILD, tmp_path)
    done = run_in(tmp_path, script)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "draw_images.py" in line and "No such file" in line
