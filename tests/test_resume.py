"""Whatever stops a training, the checkpoint survives, and resumed it ends the same."""

import contextlib
import io
import os
import signal
import sys
from unittest import mock

import pytest
import save_and_resume
import torch
from collection import DEVICES

AVAILABLE = [name for name in DEVICES if getattr(torch, name).is_available()]


def train(file, *words):
    save_and_resume.main([*words, "--checkpoint", str(file)])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "training.pt"


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The checkpoint of step 75, as bytes."""
    file = tmp_path_factory.mktemp("half") / "training.pt"
    train(file, "--steps", "75")
    return file.read_bytes()


def assert_same(file, other):
    """Every tensor and number in the files must be the same to the last bit."""
    torch.testing.assert_close(torch.load(file), torch.load(other), rtol=0, atol=0)


# Stopped


@contextlib.contextmanager
def states_while_saving(folder):
    """Yield a list of {name: bytes}: all that a kill while saving leaves in the folder.

    Files change only while Python calls a function written in C. So the folder is
    looked at before and after each of these calls.
    """
    states = []

    def look(frame, event, argument):
        if event.startswith("c_"):
            state = {path.name: path.read_bytes() for path in folder.iterdir()}
            if state not in states:
                states.append(state)

    def watched(*args, save=save_and_resume.save):
        sys.setprofile(look)
        try:
            save(*args)
        finally:
            sys.setprofile(None)

    with mock.patch.object(save_and_resume, "save", watched):
        yield states


@pytest.mark.parametrize("device", AVAILABLE)
def test_killed_at_any_moment_it_ends_the_same(device, tmp_path, capsys, monkeypatch):
    """Its output goes into a file, whose last lines Python keeps until a flush."""
    monkeypatch.setattr(save_and_resume, "H", 5)  # small files are quickly read
    words = "--device", device, "--steps", "50", "--every", "20"
    whole = tmp_path / "whole"
    whole.mkdir()
    with (
        states_while_saving(whole) as states,
        open(whole / "output", "w", encoding="utf-8") as output,
        contextlib.redirect_stdout(output),
    ):
        train(whole / "training.pt", *words)
    expected = set((whole / "output").read_text(encoding="utf-8").splitlines())
    assert len(expected) == 2  # of steps 1 and 50

    resumed = set()
    for number, state in enumerate(states):
        folder = tmp_path / str(number)
        folder.mkdir()
        printed = state.pop("output").decode().splitlines()
        for name, data in state.items():
            (folder / name).write_bytes(data)
        train(folder / "training.pt", *words)
        after = capsys.readouterr().out.splitlines()
        if "training.pt" in state:
            resumed.add(after.pop(0))
        assert {*printed, *after} == expected, "a line was lost, or has another loss"
        assert_same(folder / "training.pt", whole / "training.pt")
        assert os.listdir(folder) == ["training.pt"]
    assert resumed == {f"resumed at step {step}" for step in (0, 20, 40, 50)}


def test_a_full_disk_keeps_the_checkpoint(half, file, capsys):
    """No file may have more than 500,000 bytes here; a checkpoint has twice as many."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    file.write_bytes(half)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(SystemExit, match="2"):
            train(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capsys.readouterr().err.startswith(f"cannot write {file}: ")
    assert file.read_bytes() == half
    assert os.listdir(file.parent) == [file.name]


def test_ctrl_c_while_saving_keeps_the_checkpoint(half, file, monkeypatch):
    file.write_bytes(half)
    monkeypatch.setattr(os, "fsync", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(file)
    assert file.read_bytes() == half
    assert os.listdir(file.parent) == [file.name]


# Refused


def refused(file, capsys):
    """Return the one line that the program says, as it ends with status 2."""
    with pytest.raises(SystemExit, match="2"):
        train(file)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_a_place_where_no_file_can_be_is_refused_at_once(tmp_path, capsys):
    file = tmp_path / "missing" / "training.pt"
    assert refused(file, capsys).startswith(f"cannot write {file}: ")


def test_saves_zero_steps_apart_are_refused(file, capsys):
    with pytest.raises(SystemExit, match="2"):
        train(file, "--every", "0")
    assert "argument --every: must be at least 1" in capsys.readouterr().err


def changed(data, value, *path):
    """Return a checkpoint with another value in one place, as bytes."""
    checkpoint = part = torch.load(io.BytesIO(data))
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    return stream.getvalue()


AVERAGE = "optimizer", "state", 0, "exp_avg"  # of the first weights, (100, 1000)
FOREIGN = {
    "empty": lambda data: b"",
    "text": lambda data: b"my notes\n" * 1000,
    "half of a file": lambda data: data[: len(data) // 2],
    "weights missing": lambda data: changed(data, {}, "model"),
    "no optimizer": lambda data: changed(data, {}, "optimizer"),
    "other averages": lambda data: changed(data, torch.zeros(1000, 100), *AVERAGE),
    "infinity": lambda data: changed(data, torch.ones(100, 1000) / 0, *AVERAGE),
    "no number": lambda data: changed(data, "ten", "step"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_does_not_fit_is_refused_and_left_alone(kind, half, file, capsys):
    data = FOREIGN[kind](half)
    file.write_bytes(data)
    assert refused(file, capsys).startswith(f"cannot resume from {file}, ")
    assert file.read_bytes() == data
    assert os.listdir(file.parent) == [file.name]


class Attack:
    """What a stranger may put into a pickle: a call of any function."""

    def __reduce__(self):
        return print, ("attack",)


def test_code_in_a_checkpoint_is_not_run(half, file, capsys):
    file.write_bytes(changed(half, Attack(), "model"))
    refused(file, capsys)  # nothing was printed
    torch.load(file, weights_only=False)
    assert capsys.readouterr().out == "attack\n", "the test's attack does not work"


# Moved to another machine


def test_a_checkpoint_from_a_gpu_is_resumed_on_a_cpu(half, file):
    with mock.patch.object(torch.serialization, "location_tag", lambda _: "cuda:0"):
        file.write_bytes(changed(half, torch.zeros(16).byte(), "gpu_generator"))
    whole = file.with_name("whole.pt")
    for each in (file, whole):
        train(each, "--steps", "100")
    assert_same(file, whole)
