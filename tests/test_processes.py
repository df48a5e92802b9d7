"""Several processes train one model: with the losses of one, and through a crash.

Most of them are forked from one that has imported torch and computed nothing.
"""

import contextlib
import errno
import io
import logging
import math
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
import warnings
from multiprocessing.connection import wait
from pydoc_data.topics import topics

import forked
import pytest
import torch
import torch.distributed as dist
from collection import (
    DDP,
    ENVIRONMENT,
    EVERY_STEP,
    FSDP,
    IN_FLOAT64,
    NUMPY,
    ROOT,
    SECONDS,
    SEQUENTIAL,
    curve,
    edited,
    execute,
    losses,
    source,
)
from readme import README, blocks
from test_bad_input_gets_one_line import assert_one_line

MISTAKES = "advanced/common_mistakes.py"
CONTEXT = forked.SERVER if forked.CAN_FORK else multiprocessing.get_context("spawn")
EPS = torch.finfo(torch.float32).eps
FSDP_IN_FLOAT64 = (
    ("Block(T * E),", "Block(T * E).double(),"),
    ("torch.nn.Embedding(V, E)", "torch.nn.Embedding(V, E).double()"),
    ("torch.nn.Linear(T * E, V)", "torch.nn.Linear(T * E, V).double()"),
    EVERY_STEP[1],
)
FSDP_EVERY_STEP = (
    *FSDP_IN_FLOAT64,
    ("t == 1 or t % 50 == 0 or t == args.steps", "True"),
)


def work(rank, world, port, connection, *task):
    """Be one of the processes, as if torchrun had started it.

    Send (what came out, None), or (None, the traceback) of what went wrong.
    """
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    warnings.simplefilter("error")
    try:
        connection.send((outcome_of(*task), None))
    except BaseException:
        connection.send((None, traceback.format_exc()))
        raise


def outcome_of(script, edits, argv, name):
    """Return (output, variable name) of an edited script, which destroys its group."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        variables = execute(script, *edits, argv=argv)
    assert not dist.is_initialized()
    return output.getvalue(), variables.get(name)


def together(world, script, *edits, argv=(), name=None):
    """Execute an edited script in processes; return [(output, variable name), ...].

    When one of them fails, the others are killed, as by torchrun. The AssertionError
    has what each of them had to say, and its exit status.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    found, errors, left, processes = {}, {}, {}, []
    limit = time.monotonic() + SECONDS
    try:
        for rank in range(world):
            receiver, sender = CONTEXT.Pipe(duplex=False)
            args = rank, world, store.port, sender, script, edits, argv, name
            processes.append(CONTEXT.Process(target=work, args=args))
            processes[-1].start()
            sender.close()
            left[receiver] = rank
        while left:
            ready = wait(left, timeout=max(0, limit - time.monotonic()))
            if not ready:
                break
            for receiver in ready:
                rank = left.pop(receiver)
                try:
                    found[rank], errors[rank] = receiver.recv()
                except EOFError:
                    errors[rank] = "ended without a word"
                if errors[rank]:  # the others may wait for it for ever, or fail as well
                    limit = min(limit, time.monotonic() + 2)
        for process in processes:
            process.join(max(0, limit - time.monotonic()))
        codes = [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    said = [
        f"rank {rank}: exit status {code}: {errors.get(rank, 'it hangs')}"
        for rank, code in enumerate(codes)
    ]
    assert codes == [0] * world, "\n".join(said)
    return [found[rank] for rank in range(world)]


def losses_of(results):
    """Return what rank 0 printed as {step: loss}; the others must print nothing."""
    (output, _), *others = results
    assert [text for text, _ in others] == [""] * len(others)
    return losses(output)


def alone(script, *edits, argv=()):
    """Return {step: loss} of a script executed in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        execute(script, *edits, argv=argv)
    assert not dist.is_initialized()
    return losses(output.getvalue())


def distance(one, other):
    """Compare two curves as test_rungs_print_the_same_losses.py does."""
    one, other = (torch.as_tensor(list(c), dtype=torch.float64) for c in (one, other))
    return (one.sqrt() - other.sqrt()).abs().max() / other[0].sqrt()


@pytest.mark.parametrize("world", [2, 3])
def test_ddp_prints_the_losses_of_numpy(world):
    """64 rows are 32 and 32, or 22, 21 and 21."""
    found = losses_of(together(world, DDP, *EVERY_STEP))
    assert list(found) == list(range(1, 501))
    assert distance(found.values(), curve(NUMPY)) <= 16 * EPS


KEEP = ("del model\n", "kept = [w.tolist() for w in model.parameters()]\ndel model\n")


def test_ddp_leaves_the_same_weights_in_all_processes():
    """After 3 steps in float64 they are also those of the neighbour on the ladder."""
    edits = IN_FLOAT64[0], IN_FLOAT64[2]
    argv = ["--steps", "3"]
    results = together(3, DDP, *edits, KEEP, argv=argv, name="kept")
    (_, one), *others = results
    assert all(weights == one for _, weights in others)
    model = execute(SEQUENTIAL, *edits, argv=argv)["model"]
    for weight, expected in zip(one, model.parameters(), strict=True):
        weight = torch.tensor(weight, dtype=torch.float64)
        torch.testing.assert_close(weight, expected.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", ["256", "4096"])
def test_ddp_learns_larger_batches_as_well(batch):
    argv = ["--steps", "60", "--batch", batch]
    one = alone(DDP, *EVERY_STEP, argv=argv)
    assert all(map(math.isfinite, one.values()))
    assert one[60] < one[1] / 2
    two = losses_of(together(2, DDP, *EVERY_STEP, argv=argv))
    assert distance(two.values(), one.values()) <= 64 * EPS


@pytest.fixture(scope="module")
def unsharded():
    """The losses of 12 steps of the network as a whole, in float64: {step: loss}."""
    script = execute(FSDP, argv=["--steps", "1"])
    torch.manual_seed(0)
    blocks = [script["Block"](128) for _ in range(4)]
    ends = torch.nn.Embedding(256, 16), torch.nn.Linear(128, 256)
    model = torch.nn.Sequential(ends[0], torch.nn.Flatten(), *blocks, ends[1]).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    text = "".join(topics[name] for name in sorted(topics))[:100_000]
    data = torch.tensor(list(text.encode()))
    found = {}
    for t in range(1, 13):
        torch.manual_seed(t)
        starts = torch.randint(len(data) - 8, (512, 1))[:, 0].tolist()
        rows = torch.stack([data[start:][:9] for start in starts])
        loss = torch.nn.functional.cross_entropy(model(rows[:, :8]), rows[:, 8])
        found[t] = loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return found


def assert_part_of(found, whole, steps):
    expected = {step: whole[step] for step in steps}
    assert found == pytest.approx(expected, rel=1e-9)


def test_fsdp_goes_on_with_any_number_of_processes(unsharded, tmp_path):
    """With two, then alone, then with three, over which 512 rows are not even."""
    options = ["--checkpoint", str(tmp_path / "shares"), "--steps"]
    two = together(2, FSDP, *FSDP_EVERY_STEP, argv=[*options, "4"])
    assert_part_of(losses_of(two), unsharded, range(1, 5))
    assert two[0][0].splitlines()[0] == "parameters 170240  shares 0.500 0.500"
    one = alone(FSDP, *FSDP_EVERY_STEP, argv=[*options, "8"])
    assert_part_of(one, unsharded, range(5, 9))
    three = together(3, FSDP, *FSDP_EVERY_STEP, argv=[*options, "12"])
    assert_part_of(losses_of(three), unsharded, range(9, 13))
    shares = [float(share) for share in three[0][0].splitlines()[0].split()[3:]]
    assert sum(shares) == pytest.approx(1, abs=2e-3) and max(shares) < 0.34
    assert os.listdir(tmp_path / "shares") == ["step-12"]


CRASH = """
    if step == 4 and dist.get_rank() == {rank}:
        import os
        real, calls = {call}, iter(range({n}))
        {call} = lambda *args, **kw: (
            os.kill(os.getpid(), 9) if next(calls, None) is None else real(*args, **kw)
        )
    try:
        dcp.save("""


@pytest.mark.parametrize(
    "rank, call, n, good",
    [
        (1, "os.fsync", 0, 3),  # the shares of one process are there
        (0, "os.fsync", 1, 3),  # all shares are there, but not what says so
        (0, "os.unlink", 1, 4),  # half of the old checkpoint is gone
    ],
)
def test_fsdp_outlives_a_crash_while_it_writes(
    unsharded, tmp_path, rank, call, n, good
):
    argv = ["--checkpoint", str(tmp_path), "--steps", "6"]
    crash = ("\n    try:\n        dcp.save(", CRASH.format(rank=rank, call=call, n=n))
    with pytest.raises(AssertionError, match=f"rank {rank}: exit status -9:"):
        together(2, FSDP, *FSDP_EVERY_STEP, crash, argv=argv)
    assert len(list(tmp_path.iterdir())) == 2
    found = alone(FSDP, *FSDP_EVERY_STEP, argv=argv)
    assert_part_of(found, unsharded, range(good + 1, 7))
    assert os.listdir(tmp_path) == ["step-6"]


def test_fsdp_on_a_full_disk_keeps_the_older_checkpoint(tmp_path, monkeypatch, capfd):
    folder = tmp_path / "shares"
    argv = ["--checkpoint", str(folder), "--steps"]
    alone(FSDP, argv=[*argv, "1"])
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as exit:
        alone(FSDP, argv=[*argv, "2"])
    assert exit.value.code == 2
    assert not dist.is_initialized()
    assert_one_line(capfd.readouterr().err, f"cannot write to {folder}: OSError(28")
    after = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    assert after == before


SAYS_WHETHER_THE_GROUP_IS_GONE = """
import os, runpy, sys, weakref
import torch
import torch.distributed as dist

def destroy_and_look(destroy=dist.destroy_process_group):
    group = weakref.ref(dist.group.WORLD)
    destroy()
    print("the group is gone" if group() is None else "something keeps the group")

dist.destroy_process_group = destroy_and_look
path, function, *argv = sys.argv[1:]
sys.argv = [path, *argv]
variables = runpy.run_path(path, run_name="run" if function else "__main__")
if function:
    variables[function](int(argv[0]), os.getcwd(), torch.zeros(2))
"""


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param([[DDP, "", "--steps", "1"]], id="DDP"),
        pytest.param(
            [[MISTAKES, "gradients_of_sums", rank] for rank in "01"], id="mistake"
        ),
    ],
)
def test_nothing_keeps_the_group_that_is_destroyed(commands, tmp_path):
    """Or its threads meet the end of the interpreter, and now and then it aborts.

    This needs new processes, which have not imported what keeps the group.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SAYS_WHETHER_THE_GROUP_IS_GONE]
            + [ROOT / script, *argv],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for script, *argv in commands
    ]
    for output in ended(*processes):
        assert output.splitlines()[-1] == "the group is gone"


TORCHRUN = [
    shlex.split(line)
    for body in blocks(README.read_text(encoding="utf-8"), "bash")
    for line in body.replace("\\\n", "").splitlines()
    if "torchrun " in line
]


def torchrun(word, changes, *more):
    """Start the README's command with that word in it and return the process.

    changes = {word: another} is made in the command, and more words come after it.
    """
    (command,) = (words for words in TORCHRUN if word in words)
    assert set(changes) <= set(command)
    command = [changes.get(word, word) for word in command]
    place = command.index("torchrun")
    variables = [word.split("=") for word in command[:place]]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *command[place:][1:], *more],
        cwd=ROOT,
        env=ENVIRONMENT | {"PYTHONWARNINGS": "error"} | dict(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process):
    """End a process that is still there; return its output and its errors."""
    process.terminate()  # torchrun ends its processes as well
    try:
        return process.communicate(timeout=20)
    except subprocess.TimeoutExpired:  # it has none left and waits for other machines
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()


def ended(*processes):
    """Return what each of them has printed, once all have ended as they should."""
    limit = time.monotonic() + SECONDS
    try:
        while time.monotonic() < limit:
            codes = [process.poll() for process in processes]
            if None not in codes or any(codes):
                break
            time.sleep(0.1)
    finally:
        outputs, errors = zip(*map(end, processes), strict=True)
    assert codes == [0] * len(processes), "\n".join(errors)
    return outputs


def test_torchrun_starts_killed_processes_again_and_no_loss_is_another(
    unsharded, tmp_path
):
    """One process of two is killed: what is lost are the steps since the checkpoint."""
    more_often = ("t % 50 == 0", "t % 5 == 0")
    killed = """        import os
        if t == 7 and rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), 9)
        optimizer.zero_grad()"""
    crash = ("        optimizer.zero_grad()", killed)
    copy = tmp_path / "copy_of_script.py"
    copy.write_text(
        edited(source(FSDP), *FSDP_IN_FLOAT64, more_often, crash), encoding="utf-8"
    )
    changes = {FSDP: str(copy), "shares": str(tmp_path / "shares")}
    (output,) = ended(torchrun("--max-restarts", changes, "--steps", "10"))
    begun, *attempts = output.split("parameters 170240  shares 0.500 0.500\n")
    assert begun == "" and len(attempts) == 2
    for attempt, steps in zip(attempts, ([1, 5], [10]), strict=True):
        assert_part_of(losses(attempt), unsharded, steps)
    assert os.listdir(tmp_path / "shares") == ["step-10"]


def test_two_machines_print_the_losses_of_numpy():
    """Both are this one, with a torchrun each and one process.

    The store where they meet is ours, so the port is free, and neither of the two takes
    the store away with it while the other one still needs it.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    changes = {"first.example.com:29400": f"localhost:{store.port}", "8": "1"}
    more = "--steps", "50"
    agents = [torchrun("--rdzv-endpoint", changes, *more) for _ in range(2)]
    outputs = ended(*agents)
    assert outputs.count("") == 1
    found = losses("".join(outputs))
    expected = curve(NUMPY)[torch.tensor(list(found)) - 1]
    assert list(found) == [1, 50]
    assert distance(found.values(), expected) <= 16 * EPS + 1e-5


@pytest.mark.parametrize(
    "script, wrong, what",
    [
        (DDP, ["--batch", "65"], "--batch: invalid choice: '65'"),
        (DDP, ["--batch", "-5"], "--batch: invalid choice: '-5'"),
        (DDP, ["--device", "mps"], "--device: invalid choice: 'mps'"),
        (FSDP, ["--device", "mps"], "--device: invalid choice: 'mps'"),
        (FSDP, ["--checkpoint"], "--checkpoint: expected one argument"),
        (FSDP, ["--checkpoint", "file"], "cannot go on from file: FileExistsError"),
        (FSDP, ["--checkpoint", "no/folder"], "cannot go on from no/folder: FileNot"),
        (FSDP, ["--checkpoint", "foreign"], "cannot go on from foreign: Unpickling"),
    ],
)
def test_wrong_option(script, wrong, what, capfd, caplog, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.mps, "is_available", lambda: True)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "foreign/step-7").mkdir(parents=True)
    (tmp_path / "foreign/step-7/.metadata").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as exit:
        execute(script, argv=wrong)
    assert not dist.is_initialized()
    assert exit.value.code == 2
    assert_one_line(capfd.readouterr().err, what)
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []
    assert sorted(tmp_path.rglob("*")) == before
