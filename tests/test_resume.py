"""A run that is killed and resumed prints, bit for bit, what an unbroken one prints."""

import contextlib
import ctypes
import errno
import io
import math
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

import forked
import pytest
import torch
from collection import (
    DEVICES,
    ENVIRONMENT,
    ROOT,
    SECONDS,
    edited,
    execute,
    losses,
    source,
)
from readme import README, blocks

RESUME = "optim/save_and_resume.py"
EVERY_LINE = ("t == 1 or t % 50 == 0", "True")
HALF, STEPS = 75, 150
linux = pytest.mark.skipif(
    not forked.CAN_FORK, reason="too many processes to start each of them anew"
)
unix = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has other rights, for files and links"
)


def begin(folder, *argv, before=""):
    """Start the script, printing each step, in a process of its own.

    It writes into two files, as by > and 2>. The line before is put before its code.
    """
    folder.mkdir(exist_ok=True)
    lines = ["import sys, os, dying, resource"]
    lines += ["sys.stdout.reconfigure(line_buffering=False)", before, source(RESUME)]
    script = folder / "script.py"
    script.write_text(edited("\n".join(lines), EVERY_LINE), encoding="utf-8")
    outputs = [folder / "stdout", folder / "stderr"]
    for output in outputs:
        output.unlink(missing_ok=True)
    return forked.start((script, *argv), folder, outputs)


def end(process):
    """Wait for a process and return its exit status."""
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        pytest.fail(f"the script still ran after {SECONDS} seconds")
    return process.exitcode


def lines(folder):
    """Return what a process has printed."""
    return (folder / "stdout").read_text(encoding="utf-8").splitlines()


def printed(*argv, edits=()):
    """Execute the script here and return what it prints, a line for each step."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        execute(RESUME, EVERY_LINE, *edits, argv=[str(word) for word in argv])
    return output.getvalue().splitlines()


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A checkpoint in the middle, in bytes."""
    file = tmp_path_factory.mktemp("half") / "training.pt"
    printed("--steps", HALF, "--checkpoint", file)
    return file.read_bytes()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The lines of all steps, printed by a run that nobody killed."""
    file = tmp_path_factory.mktemp("unbroken") / "training.pt"
    found = printed("--steps", STEPS, "--checkpoint", file)
    assert list(losses("\n".join(found))) == list(range(1, STEPS + 1))
    return found


@pytest.fixture
def file(tmp_path):
    return tmp_path / "training.pt"


def check(found, unbroken, file, seen):
    """Compare what a run, killed or not, has printed and saved with the unbroken run.

    seen has the steps that were printed by now, in one run or another.
    """
    first = 0
    if found and found[0].startswith("resumed"):
        first = int(re.fullmatch(r"resumed at step (\d+)", found.pop(0))[1])
    last = first + len(found)
    assert found == unbroken[first:last]
    seen |= set(range(first + 1, last + 1))
    if file.exists():
        step = torch.load(file, weights_only=True)["step"]
        assert step >= first
        assert seen >= set(range(1, step + 1)), "a line was lost, and is not repeated"


MOMENTS = ["before fsync", "after fsync", "before replace", "after replace"]
MOMENTS += ["before randperm", "after randperm", "after print"]
MOMENTS += ["in the middle"] * 9


@linux
def test_killed_at_chosen_moments_it_loses_nothing(unbroken, file, tmp_path):
    """16 kills in one training: in the middle of a file, and around every call."""
    chance = random.Random(0)
    seen, size = set(), 1000
    command = "--steps", STEPS, "--every", 3, "--checkpoint", file
    for moment in chance.sample(MOMENTS, len(MOMENTS)):
        when = moment, chance.randint(2, 5), chance.randrange(size)
        process = begin(tmp_path / "run", *command, before=f"dying.prepare{when}")
        assert end(process) == -signal.SIGKILL
        check(lines(tmp_path / "run"), unbroken, file, seen)
        size = file.stat().st_size
    assert end(begin(tmp_path / "run", *command)) == 0
    check(lines(tmp_path / "run"), unbroken, file, seen)
    assert seen == set(range(1, STEPS + 1))


@linux
def test_killed_at_any_time_it_loses_nothing(unbroken, file, tmp_path):
    """10 kills from outside. A run that was faster is none: then all begins anew."""
    chance = random.Random(0)
    seen, kills = set(), 0
    command = "--steps", STEPS, "--every", 5, "--checkpoint", file
    while kills < 10:
        process = begin(tmp_path / "run", *command)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        killed = end(process) == -signal.SIGKILL
        kills += killed
        check(lines(tmp_path / "run"), unbroken, file, seen)
        if not killed:
            assert seen == set(range(1, STEPS + 1))
            file.unlink()
            seen.clear()
    assert end(begin(tmp_path / "run", *command)) == 0
    check(lines(tmp_path / "run"), unbroken, file, seen)
    assert seen == set(range(1, STEPS + 1))


def test_the_commands_of_the_readme_kill_it_and_resume_it(tmp_path, monkeypatch):
    """In a real process, which writes into a pipe. The second ends a little later."""
    shell = blocks(README.read_text(encoding="utf-8"), "bash")
    (block,) = [text for text in shell if RESUME in text]
    first, second = block.splitlines()
    assert first == f"{second} & sleep 10; kill -9 $!"
    python, script, *words = second.split()
    assert (python, script) == ("python", RESUME)
    with subprocess.Popen(
        [sys.executable, "-W", "error", ROOT / script, *words],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        late = threading.Timer(SECONDS, process.kill)
        late.start()
        shown = [process.stdout.readline() for _ in range(3)]
        late.cancel()
        process.kill()
        shown = "".join(shown + process.stdout.readlines()).splitlines()
    assert process.returncode != 0
    monkeypatch.chdir(tmp_path)
    step = torch.load(words[-1], weights_only=True)["step"]
    words[words.index("--steps") + 1] = step + 50
    resumed, *rest = printed(*words)
    words[-1] = "another.pt"
    whole = printed(*words)
    assert (resumed, rest) == (f"resumed at step {step}", whole[step:])
    expected = [whole[0], *whole[49::50]]  # the last of them may be lost, or repeated
    assert shown in (expected, expected[:-1])


ON_DEVICES = [name for name in DEVICES if getattr(torch, name).is_available()]


@pytest.mark.parametrize("device", ON_DEVICES)
def test_interrupted_anywhere_it_goes_on_the_same(device, tmp_path):
    whole = printed("--steps", 40, "--device", device)[:40]
    for step in (1, 2, 13, 39, 40):
        words = "--device", device, "--checkpoint", tmp_path / f"{step}.pt"
        assert printed("--steps", step, *words) == whole[:step]
        resumed = [f"resumed at step {step}", *whole[step:]]
        assert printed("--steps", 40, *words) == resumed


PARTS = '{"model": model, "optimizer": optimizer, "scheduler": scheduler}'
LEFT_OUT = {
    "nothing": (EVERY_LINE[1], EVERY_LINE[1]),
    "model": (PARTS, PARTS.replace('"model": model, ', "")),
    "optimizer": (PARTS, PARTS.replace('"optimizer": optimizer, ', "")),
    "scheduler": (PARTS, PARTS.replace(', "scheduler": scheduler', "")),
    "random state": ('if left_out != "random"', "if False"),
    "step": ('return saved["step"]', "return 0"),
}


@pytest.mark.parametrize("part", LEFT_OUT)
def test_every_part_of_the_checkpoint_is_needed(part, half, unbroken, file):
    file.write_bytes(half)
    words = "--steps", STEPS, "--checkpoint", file
    rest = printed(*words, edits=[LEFT_OUT[part]])[1:]
    assert (rest == unbroken[HALF:]) == (part == "nothing")


@pytest.mark.parametrize("command", [(RESUME,)], ids=" ".join)
def test_the_script_shows_what_a_part_left_out_changes(run, command):
    *_, last, resumed, nothing, optimizer, scheduler, state = run.stdout.splitlines()
    assert (last[:9], resumed) == ("step  500", "resumed at step 250")
    pattern = r"(\w+) +left out  loss (\S+)  off by up to (\d+)%"
    loss = f"{losses(run.stdout)[500]:.8e}"
    assert re.fullmatch(pattern, nothing).groups() == ("nothing", loss, "0")
    names = ["optimizer", "scheduler", "random"]
    for name, line in zip(names, [optimizer, scheduler, state], strict=True):
        which, other, off = re.fullmatch(pattern, line).groups()
        assert which == name
        assert int(off) > 80  # "about twice", says the README
        assert float(other) < float(loss)  # and "the last loss is lower"


def test_a_finished_training_has_nothing_left_to_do(half, file):
    file.write_bytes(half)
    words = "--steps", HALF, "--checkpoint", file
    assert printed(*words) == [f"resumed at step {HALF}"]


def refused(capfd, *argv):
    """Execute the script, which has to refuse, and return the line that it says."""
    with pytest.raises(SystemExit) as exit:
        execute(RESUME, argv=[str(word) for word in argv])
    assert exit.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "error: " in line
    return line


def test_fewer_steps_than_the_checkpoint_has_are_refused(half, file, capfd):
    file.write_bytes(half)
    line = refused(capfd, "--steps", HALF - 1, "--checkpoint", file)
    assert f"--steps: must be {HALF} or more" in line
    assert file.read_bytes() == half


class Program:
    """What a stranger may put into a pickle: a call of any function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def saved(what):
    """Return the bytes that torch.save writes."""
    stream = io.BytesIO()
    torch.save(what, stream)
    return stream.getvalue()


def another_network(parts):
    parts["model"] = torch.nn.Sequential(torch.nn.Linear(3, 2)).state_dict()


def another_optimizer(parts):
    weights = torch.nn.Linear(1000, 100), torch.nn.Linear(100, 10)
    weights = [weight for layer in weights for weight in layer.parameters()]
    optimizer = torch.optim.SGD(weights, momentum=0.9)
    sum(weight.sum() for weight in weights).backward()
    optimizer.step()
    parts["optimizer"] = optimizer.state_dict()


def put(value, *path):
    """Return a function that puts this value into a checkpoint."""

    def change(parts):
        for name in path[:-1]:
            parts = parts[name]
        parts[path[-1]] = value

    return change


ADAM = "optimizer", "state", 0  # what it keeps for the first weights, (100, 1000)
CHANGES = {
    "another network": another_network,
    "weights that are no numbers": put(torch.full([100], math.nan), "model", "0.bias"),
    "another optimizer": another_optimizer,
    "no optimizer": lambda parts: parts.pop("optimizer"),
    "no average": lambda parts: parts["optimizer"]["state"][0].pop("exp_avg"),
    "an average of another shape": put(torch.zeros(1000, 100), *ADAM, "exp_avg"),
    "an infinite average": put(torch.full([100, 1000], math.inf), *ADAM, "exp_avg"),
    "a count that is no number": put(torch.tensor(math.nan), *ADAM, "step"),
    "a count that is a text": put("75", *ADAM, "step"),
    "a rate that is a text": put("1", "optimizer", "param_groups", 0, "lr"),
    "a schedule that is a text": put("75", "scheduler", "last_epoch"),
    "a schedule that is no number": put(math.nan, "scheduler", "last_epoch"),
    "no random state": lambda parts: parts.pop("random"),
    "no random state of the CPU": put({}, "random"),
    "a random state of another size": put(torch.zeros(9).byte(), "random", "cpu"),
    "no step": lambda parts: parts.pop("step"),
    "a step that is a text": put("75", "step"),
    "a step that is no number": put(math.nan, "step"),
    "a step before the first": put(-1, "step"),
}
FOREIGN = {
    "empty": b"",
    "text": b"no checkpoint\n" * 1000,
    "noise": random.Random(0).randbytes(5000),
    "pickle": pickle.dumps({"step": 3}),
    "old format": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    "a list": saved([1, 2]),
    "the weights alone": saved(torch.nn.Linear(1000, 100).state_dict()),
    "a whole module": saved(torch.nn.Linear(2, 3)),
}


def changed(half, change):
    """Return a checkpoint with something else in it."""
    parts = torch.load(io.BytesIO(half), weights_only=True)
    change(parts)
    return saved(parts)


@pytest.mark.parametrize("kind", [*FOREIGN, *CHANGES])
def test_a_foreign_file_is_refused_and_left_alone(kind, half, file, capfd):
    data = FOREIGN[kind] if kind in FOREIGN else changed(half, CHANGES[kind])
    file.write_bytes(data)
    assert str(file) in refused(capfd, "--checkpoint", file)
    assert file.read_bytes() == data
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.3, 0.5, 0.9, 0.99, 0.999])
def test_a_truncated_checkpoint_is_refused_and_left_alone(share, half, file, capfd):
    file.write_bytes(half[: int(share * len(half))])
    assert str(file) in refused(capfd, "--checkpoint", file)
    assert file.read_bytes() == half[: int(share * len(half))]


def test_one_byte_less_is_refused(half, file, capfd):
    file.write_bytes(half[:-1])
    assert str(file) in refused(capfd, "--checkpoint", file)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_page_that_never_reached_the_disk_is_noticed(share, half, file, capfd):
    """PyTorch itself takes the zeros for weights, without a word."""
    place = int(share * len(half))
    damaged = half[:place] + bytes(4096) + half[place:][4096:]
    assert len(damaged) == len(half)
    torch.load(io.BytesIO(damaged), weights_only=True)
    file.write_bytes(damaged)
    assert "damaged" in refused(capfd, "--checkpoint", file)
    assert file.read_bytes() == damaged


@pytest.mark.parametrize("wrap", [saved, pickle.dumps])
def test_a_program_in_a_checkpoint_is_not_run(wrap, half, file, capfd, tmp_path):
    parts = torch.load(io.BytesIO(half), weights_only=True)
    file.write_bytes(wrap(parts | {"model": Program(tmp_path / "attack")}))
    assert str(file) in refused(capfd, "--checkpoint", file)
    assert not (tmp_path / "attack").exists()
    if wrap is saved:
        torch.load(file, weights_only=False)
        assert (tmp_path / "attack").exists()


def test_a_folder_is_refused(tmp_path, capfd):
    assert str(tmp_path) in refused(capfd, "--checkpoint", tmp_path)
    assert os.listdir(tmp_path) == []


@linux
def test_what_is_no_regular_file_is_refused_and_left_alone(half, file, tmp_path):
    """Here a pipe with a name, from which a checkpoint could be read."""
    os.mkfifo(file)

    def feed():
        with contextlib.suppress(BrokenPipeError), open(file, "wb") as pipe:
            pipe.write(half)

    threading.Thread(target=feed, daemon=True).start()
    words = "--steps", HALF + 1, "--checkpoint", file
    assert end(begin(tmp_path / "run", *words)) == 2
    (line,) = (tmp_path / "run" / "stderr").read_text(encoding="utf-8").splitlines()
    assert f"cannot resume from {file}: " in line
    assert file.is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["run", file.name]
    os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK))  # lets the thread end


@pytest.mark.parametrize("place", ["missing/file.pt", "notes.txt/file.pt"])
def test_a_place_where_no_file_can_be_is_refused_at_once(place, tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    line = refused(capfd, "--checkpoint", tmp_path / place)
    assert f"cannot write {tmp_path / place}" in line
    assert os.listdir(tmp_path) == ["notes.txt"]


@contextlib.contextmanager
def like_anybody():
    """For this thread, let the modes of files count, even if it belongs to root.

    It stays root's and keeps all else, so it can still read what is below root's home.
    """
    if os.geteuid() != 0:
        yield
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("root may do everything here: run this as another user")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522)  # capabilities, version 3
    had, reduced = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    for data in (had, reduced):
        assert libc.capget(header, data) == 0, os.strerror(ctypes.get_errno())
    reduced[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: to pass over modes
    assert libc.capset(header, reduced) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert libc.capset(header, had) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def mode(path, number):
    """Give a file or a folder another mode for the time being."""
    before = path.stat().st_mode
    path.chmod(number)
    try:
        with like_anybody():
            yield
    finally:
        path.chmod(before)


@unix
def test_a_file_that_may_not_be_read_is_refused(half, file, capfd):
    file.write_bytes(half)
    with mode(file, 0):
        assert "Permission denied" in refused(capfd, "--checkpoint", file)
    assert file.read_bytes() == half


@unix
def test_a_folder_that_may_not_be_written_keeps_the_checkpoint(half, file, capfd):
    file.write_bytes(half)
    with mode(file.parent, 0o555), pytest.raises(SystemExit) as exit:
        execute(RESUME, argv=["--checkpoint", str(file)])
    assert exit.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"cannot write {file}: " in line
    assert file.read_bytes() == half


@linux
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_full_disk_keeps_the_checkpoint(share, half, file, tmp_path):
    """The system refuses what is beyond a limit for files, as if the disk were full."""
    file.write_bytes(half)
    limit = int(share * len(half))
    command = "--steps", STEPS, "--checkpoint", file
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    assert end(begin(tmp_path / "run", *command, before=limit)) == 2
    (line,) = (tmp_path / "run" / "stderr").read_text(encoding="utf-8").splitlines()
    assert f"cannot write {file}: [Errno {errno.EFBIG}] " in line
    assert file.read_bytes() == half
    assert sorted(os.listdir(tmp_path)) == ["run", file.name]


@linux
def test_torch_save_does_not_say_that_the_disk_is_full():
    with pytest.raises(RuntimeError, match="unexpected pos"):
        torch.save(torch.zeros(100000), "/dev/full")


def test_the_bytes_are_on_the_disk_before_they_get_the_name(file):
    done = []

    def fsync(number):
        done.append(("fsync", os.fstat(number).st_size))

    def replace(old, new):
        done.append(("replace", os.path.getsize(old)))
        assert os.path.dirname(old) == os.path.dirname(new)
        rename(old, new)

    rename = os.replace
    large_buffer = [('"xb"', '"xb", 10**7')]
    with mock.patch.multiple(os, fsync=fsync, replace=replace):
        printed("--steps", 1, "--checkpoint", file, edits=large_buffer)
    assert [what for what, _ in done] == ["fsync", "replace"] * 2
    assert [size for _, size in done[-2:]] == [file.stat().st_size] * 2
    assert os.listdir(file.parent) == [file.name]


@linux
def test_two_runs_on_one_file_leave_it_whole(unbroken, file, tmp_path):
    command = "--steps", 60, "--every", 1, "--checkpoint", file
    folders = [tmp_path / "one", tmp_path / "other"]
    processes = [begin(folder, *command) for folder in folders]
    while any(process.is_alive() for process in processes):
        if file.exists():
            torch.load(file, weights_only=True)
        time.sleep(0.05)
    assert [end(process) for process in processes] == [0, 0]
    for folder in folders:
        assert lines(folder)[-1] == unbroken[59]
        check(lines(folder), unbroken, file, set(range(1, 61)))
    assert sorted(os.listdir(tmp_path)) == ["one", "other", file.name]


def test_what_a_killed_run_left_is_removed_when_it_is_old(tmp_path):
    """The name of the checkpoint is a pattern, too: it must not be taken for one."""
    file = tmp_path / "a[b].pt"
    old, young, strange, foreign = (
        tmp_path / name
        for name in (
            "a[b].pt.01234567.unfinished",
            "a[b].pt.89abcdef.unfinished",
            "ab.pt.01234567.unfinished",
            "a[b].pt.old",
        )
    )
    for path in (old, young, strange, foreign):
        path.write_bytes(b"half")
        if path != young:
            os.utime(path, (time.time() - 7200,) * 2)
    printed("--steps", 1, "--checkpoint", file)
    names = {path.name for path in (file, young, strange, foreign)}
    assert set(os.listdir(tmp_path)) == names


@unix
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "training.pt", tmp_path / "disk" / "large.pt"
    link.symlink_to(target)
    printed("--steps", 1, "--checkpoint", link)
    assert printed("--steps", 2, "--checkpoint", link)[0] == "resumed at step 1"
    assert link.is_symlink()
    assert os.listdir(target.parent) == [target.name]


def test_a_checkpoint_from_a_gpu_is_resumed_on_a_cpu(half, unbroken, file):
    def on_a_gpu(parts):
        parts["random"]["cuda"] = torch.zeros(16, dtype=torch.uint8)

    with mock.patch.object(torch.serialization, "location_tag", lambda _: "cuda:0"):
        file.write_bytes(changed(half, on_a_gpu))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(file, weights_only=True)
    rest = printed("--steps", STEPS, "--checkpoint", file)[1:]
    assert rest == unbroken[HALF:]


def test_the_learning_rate_is_that_of_the_checkpoint(half, unbroken, file):
    """As the README says, another one in the script changes nothing after a resume."""
    file.write_bytes(half)
    words = "--steps", STEPS, "--checkpoint", file
    rest = printed(*words, edits=[("lr=3e-3", "lr=1")])[1:]
    assert rest == unbroken[HALF:]
