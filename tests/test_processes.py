"""Several processes train one model with the losses of one, and through a crash."""

import contextlib
import errno
import gc
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pydoc_data.topics import topics
from unittest import mock

import char_mlp_fsdp
import pages
import pytest
import sharded_checkpoint
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from collection import (
    DDP,
    ENVIRONMENT,
    NO_SYNC,
    OPTIM,
    ROOT,
    SECONDS,
    losses,
    outcome,
    run,
)
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.fsdp import FSDPModule

PAGE = "advanced/distributed.md"
FSDP = "advanced/char_mlp_fsdp.py"
CHECKPOINT = "advanced/sharded_checkpoint.py"
# Rounding in float32 makes less than 1e-4 in 100 steps of gradient descent. Adam makes
# more of it: 0.3 % after 200 steps with another order of operations (foreach=True).
SGD, ADAM = 1e-3, 0.02
pytestmark = pytest.mark.timeout(SECONDS + 60)  # processes may hang


# Scripts, started by the commands that the page shows


def command_with(*words):
    """Return the command of the page that has all these words in it."""
    lines = pages.text(PAGE).replace("\\\n", "").splitlines()
    words = {"torchrun --", *words}
    found = [line for line in lines if all(word in line for word in words)]
    assert len(found) == 1, f"{PAGE} must have one command with {words}"
    return found[0]


def torchrun(folder, command):
    """Run a command in a folder until all its processes have ended with status 0."""
    command = "PYTHONWARNINGS=error " + command
    variables, words = map(shlex.split, command.split("torchrun "))
    words = [ROOT / word if word.startswith("advanced/") else word for word in words]
    # The name of this computer may have no address.
    start = sys.executable, "-m", "torch.distributed.run", "--local-addr", "127.0.0.1"
    with subprocess.Popen(
        [*start, *words],
        cwd=folder,
        env=ENVIRONMENT | dict(word.split("=") for word in variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=SECONDS)
        finally:
            process.terminate()  # torchrun then ends those that it has started
    assert process.returncode == 0, errors
    return output


def alone(script, *options):
    """Return the losses that one process prints: this one."""
    code, output, errors = outcome(script, argv=options)
    assert code == 0, errors
    return losses(output)


def test_ddp_prints_the_losses_of_one_process(tmp_path):
    """Over three, 200 rows are 67, 67 and 66. Below, two machines have equal parts."""
    options = ["--steps", "50", "--batch", "200"]
    command = command_with("--standalone", DDP).replace("2", "3")
    output = torchrun(tmp_path, " ".join([command, *options]))
    expected = alone(DDP, *options)
    assert expected[50] < expected[1] / 2
    assert losses(output) == pytest.approx(expected, rel=SGD)


def test_accumulation_with_ddp_prints_the_losses_of_one_process(tmp_path):
    """What is set too late makes the processes drift apart, as the page shows."""
    output = torchrun(tmp_path, command_with("--standalone", NO_SYNC) + " --steps 200")
    expected = alone(NO_SYNC, "--steps", "200")
    assert losses(output) == pytest.approx(expected, rel=SGD)
    shown = re.search(r"^```text\n([^`]*)```$", pages.text(PAGE), re.MULTILINE)[1]
    assert pages.first_difference(shown, output, ()) is None


def test_fsdp_prints_the_losses_of_one_process(tmp_path):
    output = torchrun(tmp_path, command_with("--standalone", FSDP) + " --steps 50")
    expected = losses(run(FSDP, "--steps", "50").stdout)
    assert output.startswith("parameters 170240  in each process 85120 85120\n")
    assert losses(output) == pytest.approx(expected, rel=ADAM)


def test_two_machines_print_the_losses_of_one_process(tmp_path):
    """Both are this one: the page's command twice, with one process each.

    The store where they meet is ours, so the port is free, and neither of the two takes
    the store away with it while the other one still needs it.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    command = command_with("--rdzv-endpoint") + " --steps 50"
    command = command.replace("first.example.com:29400", f"localhost:{store.port}")
    command = command.replace("--nproc-per-node 8", "--nproc-per-node 1")
    with ThreadPoolExecutor() as pool:
        outputs = sorted(pool.map(torchrun, [tmp_path] * 2, [command] * 2))
    assert outputs[0] == "", "only one process in all prints"
    expected = alone(DDP, "--steps", "50")
    assert losses(outputs[1]) == pytest.approx(expected, rel=SGD)


KILLED_ONCE = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "advanced")!r})
import sharded_checkpoint

def save(folder, step, model, optimizer, save=sharded_checkpoint.save):
    first_attempt = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if step == 100 and os.environ["RANK"] == "1" and first_attempt:
        os.kill(os.getpid(), 9)
    save(folder, step, model, optimizer)

sharded_checkpoint.save = save
sharded_checkpoint.main()
"""


def test_torchrun_starts_killed_processes_again(tmp_path):
    """One of two is killed: what is lost are the steps since the last checkpoint."""
    (tmp_path / "killed_once.py").write_text(KILLED_ONCE, encoding="utf-8")
    command = command_with("--max-restarts").replace(CHECKPOINT, "killed_once.py")
    output = torchrun(tmp_path, command + " --steps 150")
    before, after = map(losses, output.split("resumed after step 50\n"))
    assert list(before) == [1, 50, 100] and list(after) == [100, 150]
    assert os.listdir(tmp_path / "shards") == ["step-150"]
    # The network is that of the optim script.
    assert before | after == pytest.approx(alone(OPTIM, "--steps", "150"), rel=ADAM)


SAYS_WHETHER_THE_GROUP_IS_GONE = """
import os, runpy, weakref
import torch.distributed as dist

def destroy_and_look(destroy=dist.destroy_process_group):
    group = weakref.ref(dist.group.WORLD)
    destroy()
    fate = "the group is gone" if group() is None else "something keeps the group"
    print(fate + "\\n", end="")  # in one go, so that two processes' lines do not mix

dist.destroy_process_group = destroy_and_look
variables = runpy.run_path(SCRIPT)
if "run_process" in variables:
    variables["run_process"](int(os.environ["RANK"]), os.getcwd())
"""


@pytest.mark.parametrize("script", [DDP, "advanced/ddp_mistakes.py"])
def test_nothing_keeps_the_group_that_is_destroyed(script, tmp_path):
    """Or its threads meet the end of the interpreter, and now and then it aborts.

    This needs new processes, which have not imported what keeps the group. It cannot be
    asked of FSDP: PyTorch has a cache of sharded tensors, which keeps the group.
    """
    path = repr(str(ROOT / script))
    code = SAYS_WHETHER_THE_GROUP_IS_GONE.replace("SCRIPT", path)
    (tmp_path / "looks.py").write_text(code, encoding="utf-8")
    command = command_with("--standalone", DDP).replace(DDP, "looks.py")
    output = torchrun(tmp_path, command + " --steps 1")
    assert output.count("the group is gone\n") == 2, output


# Functions, called in the processes of a group

METHOD = "spawn" if sys.platform == "win32" else "forkserver"
if METHOD == "forkserver":  # which has imported torch, so processes start at once
    modules = ["torch.distributed.fsdp", "torch.distributed.checkpoint"]
    multiprocessing.set_forkserver_preload(modules)


def member(rank, world, folder, function, args):
    """Be one of the processes: call the function in float64, as a member of a group."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    store = dist.FileStore(f"{folder}/store", world)
    limit = timedelta(minutes=2)  # if one waits for another that never comes
    dist.init_process_group("gloo", None, limit, world, rank, store)
    with (
        open(f"{folder}/output {rank}", "w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
    ):
        function(*args)
    gc.collect()
    dist.destroy_process_group()


@pytest.fixture
def together(tmp_path_factory):
    """A function that calls another one in processes that form a group.

    It returns what rank 0 has printed. An error of any process is raised in this one,
    after the others have been ended. The test, too, computes in float64.
    """

    def call(world, function, *args):
        folder = tmp_path_factory.mktemp("group")
        task = world, folder, function, args
        mp.start_processes(member, task, world, daemon=True, start_method=METHOD)
        return (folder / "output 0").read_text(encoding="utf-8")

    torch.set_default_dtype(torch.float64)
    yield call
    torch.set_default_dtype(torch.float32)


def assert_same(found, expected):
    """Compare weights, in float64: after some steps, rounding is far below 1e-9."""
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9)


def train_and_save(steps, file):
    """Train the sharded model, and save its weights as a whole."""
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    model = char_mlp_fsdp.make_model(mesh)
    for block in model[2:6]:
        assert isinstance(block, FSDPModule), "each block is gathered when it is used"
    char_mlp_fsdp.train(model, steps, "cpu")
    weights = {name: w.full_tensor() for name, w in model.named_parameters()}
    if dist.get_rank() == 0:
        torch.save(weights, file)


def test_fsdp_trains_like_one_process_with_the_whole_model(tmp_path, together):
    """With three processes, over which 512 rows are not even."""
    torch.manual_seed(0)
    blocks = [char_mlp_fsdp.Block(128) for _ in range(4)]
    first, last = nn.Embedding(256, 16), nn.Linear(128, 256)
    model = nn.Sequential(first, nn.Flatten(), *blocks, last)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    text = "".join(topics[name] for name in sorted(topics))[:100_000]
    data = torch.tensor(list(text.encode()))
    for t in range(1, 5):
        torch.manual_seed(t)
        starts = torch.randint(len(data) - 8, (512, 1))[:, 0].tolist()
        rows = torch.stack([data[start:][:9] for start in starts])
        loss = nn.functional.cross_entropy(model(rows[:, :8]), rows[:, 8])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    together(3, train_and_save, 4, tmp_path / "weights.pt")
    assert_same(torch.load(tmp_path / "weights.pt"), model.state_dict())


def task(steps, folder):
    """Return arguments of sharded_checkpoint.train(): a small problem in float64."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 20, generator=generator, dtype=torch.float64)
    y = torch.randn(64, 3, generator=generator, dtype=torch.float64)
    return x, y, steps, folder


def assert_trained(folder, steps):
    """The only checkpoint has the weights that plain training in one process has."""
    x, y, *_ = task(steps, folder)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - y).square().sum().backward()
        optimizer.step()

    assert os.listdir(folder) == [f"step-{steps}"]
    whole = folder.with_suffix(".pt")
    dcp_to_torch_save(folder / f"step-{steps}", whole)
    assert_same(torch.load(whole)["model"], model.state_dict())


def test_a_run_goes_on_with_any_number_of_processes(tmp_path, together):
    """With two, then with one, then with three, over which 64 rows are not even."""
    folder = tmp_path / "shards"
    for world, steps in ((2, 4), (1, 8), (3, 12)):
        output = together(world, sharded_checkpoint.train, *task(steps, folder))
        assert steps == 4 or f"resumed after step {steps - 4}\n" in output
        assert_trained(folder, steps)


def train_and_die(victim, name, calls, *task):
    """Train, but one process is killed when it calls os.NAME after so many calls."""
    function = getattr(os, name)

    def replaced(*args, **options):
        nonlocal calls
        if calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        calls -= 1
        return function(*args, **options)

    if dist.get_rank() == victim:
        setattr(os, name, replaced)
    sharded_checkpoint.train(*task)


@pytest.mark.parametrize(
    "victim, name, calls, good",
    [
        (1, "fsync", 0, 2),  # the shards of one process are there
        (0, "fsync", 1, 2),  # all shards are there, but not what says so
        (0, "unlink", 1, 4),  # half of the old checkpoint is gone
    ],
)
def test_a_crash_costs_no_checkpoint(victim, name, calls, good, tmp_path, together):
    folder = tmp_path / "shards"
    together(2, sharded_checkpoint.train, *task(2, folder))
    # The other process may notice that its peer is gone before the death is told here.
    gone = mp.ProcessExitedException, mp.ProcessRaisedException
    with pytest.raises(gone, match="SIGKILL|peer"):
        together(2, train_and_die, victim, name, calls, *task(4, folder))
    assert len(os.listdir(folder)) == 2
    output = together(1, sharded_checkpoint.train, *task(6, folder))
    assert output.startswith(f"resumed after step {good}\n")
    assert_trained(folder, 6)


@pytest.mark.parametrize(
    "name, message",
    [
        ("file", "cannot resume from {}: a file, not a folder"),
        ("no/folder", "cannot resume from {}: FileNotFoundError: "),
        ("foreign", "cannot resume from {}: UnpicklingError: "),
        ("other", "cannot resume from {}: ValueError: Size mismatch "),
        ("full", "cannot write {}/step-2: OSError: [Errno 28] No space left"),
    ],
)
def test_one_line_says_what_is_wrong_and_all_files_stay(
    name, message, tmp_path, capfd, monkeypatch
):
    """Also those of the reader's that are beside a checkpoint."""
    (tmp_path / "file").write_text("precious")
    (tmp_path / "foreign/step-7").mkdir(parents=True)
    (tmp_path / "foreign/step-7/.metadata").write_text("precious")
    (tmp_path / "full/step-by-step").mkdir(parents=True)
    folder = tmp_path / name
    argv = ["sharded_checkpoint.py", "--checkpoint", str(folder), "--steps", "1"]
    monkeypatch.setattr(sys, "argv", argv)
    if name == "other":
        state = {"model": {"0.weight": torch.zeros(3)}}
        with warnings.catch_warnings(action="ignore"):  # about a group that is missing
            dcp.save(state, checkpoint_id=folder / "step-7")
    if name == "full":
        sharded_checkpoint.main()
        assert sorted(os.listdir(folder)) == ["step-1", "step-by-step"]
        no_space = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(os, "fsync", mock.Mock(side_effect=no_space))
        argv[-1] = "2"

    def files():
        paths = tmp_path.rglob("*")
        return {path: path.is_file() and path.read_bytes() for path in paths}

    before = files()
    with pytest.raises(SystemExit) as exit:
        sharded_checkpoint.main()
    assert exit.value.code == 2
    (line,) = capfd.readouterr().err.partition(" error: ")[2].splitlines()
    assert line.startswith(message.format(folder))
    assert files() == before
    assert not dist.is_initialized()
