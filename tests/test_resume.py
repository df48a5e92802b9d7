"""Whatever stops a training, the checkpoint survives, and resumed it ends the same."""

import io
import math
import os
import re
import signal
import sys
from unittest import mock

import pytest
import save_and_resume
import torch
from collection import DEVICES, ROOT, losses, run, run_in

SCRIPT = "optim/save_and_resume.py"
STEPS = ["--steps", "150", "--every", "25"]  # prints steps 1, 50, 100 and 150
AVAILABLE = [name for name in DEVICES if getattr(torch, name).is_available()]
unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A training that nothing stopped: the lines it printed, its last checkpoint."""
    folder = tmp_path_factory.mktemp("unbroken")
    done = run_in(folder, SCRIPT, *STEPS, "--checkpoint", "training.pt")
    assert list(losses(done.stdout)) == [1, 50, 100, 150]
    return done.stdout.splitlines(), torch.load(folder / "training.pt")


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The checkpoint of step 75, as bytes."""
    file = tmp_path_factory.mktemp("half") / "training.pt"
    train(file, "--steps", "75")
    return file.read_bytes()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "training.pt"


def train(file, *words):
    save_and_resume.main([*words, "--checkpoint", str(file)])


def assert_same(file, checkpoint):
    """Every tensor and number in the file must be the same to the last bit."""
    torch.testing.assert_close(torch.load(file), checkpoint, rtol=0, atol=0)


# A process is killed before the call of this number; at that moment the file must hold
# the checkpoint of this step. Steps 0, 25, 50 ... are saved. So the third os.replace is
# that of step 50; the second print is just before it, the 51st randperm just after it.
@unix
@pytest.mark.parametrize(
    "what, number, step",
    [
        ("os.fsync", 1, None),
        ("builtins.print", 2, 25),
        ("os.fsync", 3, 25),
        ("os.replace", 3, 25),
        ("torch.randperm", 51, 50),
        ("killed-at", 1000, None),
        ("killed-at", 1_000_000, 0),  # before its first step Adam has no averages
    ],
)
def test_killed_and_resumed_it_ends_the_same(
    what, number, step, unbroken, file, capsys
):
    words = SCRIPT, *STEPS, "--checkpoint", str(file)
    # Python must keep lines in its buffer, as it does when it writes into a file.
    dying = "tests/dying.py", what, str(number)
    killed = run_in(ROOT, *dying, *words, PYTHONUNBUFFERED="")
    assert killed.returncode in (-signal.SIGKILL, -signal.SIGXFSZ)
    assert (torch.load(file)["step"] if file.exists() else None) == step

    train(file, *STEPS)
    after = capsys.readouterr().out.splitlines()
    lines, checkpoint = unbroken
    if step is not None:
        assert after.pop(0) == f"resumed at step {step}"
    printed = {*killed.stdout.splitlines(), *after}
    assert printed == set(lines), "a line was lost, or has another loss"
    assert_same(file, checkpoint)
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("device", AVAILABLE)
def test_stopped_after_any_step_it_ends_the_same(device, file):
    whole = file.with_name("whole.pt")
    train(whole, "--device", device, "--steps", "40")
    for steps in ("1", "2", "13", "39", "40"):
        train(file, "--device", device, "--steps", steps)
    assert_same(file, torch.load(whole))


def test_ctrl_c_while_writing_keeps_the_checkpoint(half, file, monkeypatch):
    file.write_bytes(half)
    monkeypatch.setattr(os, "fsync", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(file, "--steps", "150")
    assert file.read_bytes() == half
    assert os.listdir(file.parent) == [file.name]


@unix
def test_a_full_disk_keeps_the_checkpoint(half, file):
    file.write_bytes(half)
    words = SCRIPT, *STEPS, "--checkpoint", str(file)
    done = run_in(ROOT, "tests/dying.py", "full-at", "500000", *words)
    assert done.returncode == 2
    # Here it is not the disk that is full, but the size of a file is limited.
    assert done.stderr == f"cannot write {file}: [Errno 27] File too large\n"
    assert file.read_bytes() == half
    assert os.listdir(file.parent) == [file.name]


def refused(file, capsys):
    """Return the one line that the program says, as it ends with status 2."""
    with pytest.raises(SystemExit) as end:
        train(file)
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    return err


def saved(what):
    """Return the bytes that torch.save writes."""
    stream = io.BytesIO()
    torch.save(what, stream)
    return stream.getvalue()


def with_value(value, *path):
    """Return a function that puts another value into one place of a checkpoint."""

    def change(data):
        checkpoint = part = torch.load(io.BytesIO(data))
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        return saved(checkpoint)

    return change


AVERAGE = "optimizer", "state", 0, "exp_avg"  # of the first weights, (100, 1000)
FOREIGN = {
    "empty": lambda data: b"",
    "text": lambda data: b"my notes\n" * 1000,
    "half of a file": lambda data: data[: len(data) // 2],
    "one byte less": lambda data: data[:-1],
    "weights alone": lambda data: saved(torch.nn.Linear(1000, 100).state_dict()),
    "other weights": with_value({"0.bias": torch.ones(2)}, "model"),
    "no optimizer": with_value({}, "optimizer"),
    "other averages": with_value(torch.zeros(1000, 100), *AVERAGE),
    "infinity": with_value(torch.full((100, 1000), math.inf), *AVERAGE),
    "no number": with_value("ten", "step"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_does_not_fit_is_refused_and_left_alone(kind, half, file, capsys):
    data = FOREIGN[kind](half)
    file.write_bytes(data)
    assert refused(file, capsys).startswith(f"cannot resume from {file}, ")
    assert file.read_bytes() == data
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("place", ["missing/training.pt", "notes.txt/training.pt"])
def test_a_place_where_no_file_can_be_is_refused_at_once(place, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    line = refused(tmp_path / place, capsys)
    assert line.startswith(f"cannot write {tmp_path / place}: ")
    assert os.listdir(tmp_path) == ["notes.txt"]


class Program:
    """What a stranger may put into a pickle: a call of any function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(half, file, capsys):
    attack = file.with_name("attack")
    file.write_bytes(with_value(Program(attack), "model")(half))
    refused(file, capsys)
    assert not attack.exists()
    torch.load(file, weights_only=False)
    assert attack.exists(), "the attack of this test does not work"


def test_fewer_steps_than_the_checkpoint_has_leave_it_alone(half, file, capsys):
    file.write_bytes(half)
    train(file, "--steps", "10")
    assert capsys.readouterr().out == "resumed at step 75\n"
    assert file.read_bytes() == half


def test_a_checkpoint_from_a_gpu_is_resumed_on_a_cpu(half, unbroken, file):
    with mock.patch.object(torch.serialization, "location_tag", lambda _: "cuda:0"):
        file.write_bytes(with_value(torch.zeros(16).byte(), "gpu_generator")(half))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(file)
    train(file, *STEPS)
    assert_same(file, unbroken[1])


def test_a_part_left_out_changes_the_losses():
    output = run("optim/what_a_checkpoint_needs.py").stdout
    pattern = r"^without (\w+) +loss (\S+)  off by up to (\d+)%$"
    nothing, *parts = re.findall(pattern, output, re.MULTILINE)
    assert nothing == ("nothing", f"{losses(output)[500]:.8e}", "0")
    assert [name for name, _, _ in parts] == ["optimizer", "scheduler", "generator"]
    for _, loss, off in parts:
        # The page says that some loss doubles, and that the last one is lower.
        assert int(off) > 80
        assert float(loss) < float(nothing[1])
