"""Several processes train one model with the losses of one, and through a crash."""

import contextlib
import errno
import gc
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics

import char_mlp_fsdp
import pages
import pytest
import sharded_checkpoint
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from collection import (
    DDP,
    ENVIRONMENT,
    NUMPY,
    OPTIM,
    ROOT,
    SECONDS,
    curve,
    losses,
    run,
)
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule

PAGE = "advanced/README.md"
FSDP = "advanced/char_mlp_fsdp.py"
CHECKPOINT = "advanced/sharded_checkpoint.py"
EPS = torch.finfo(torch.float32).eps


# Scripts, started by the commands that the page shows

COMMANDS = [
    line
    for match in pages.FENCE.finditer(pages.text(PAGE))
    if match["kind"] == "bash"
    for line in match["body"].replace("\\\n", "").splitlines()
    if "torchrun " in line
]


def command_with(*words):
    """Return the command of the page that has all these words in it."""
    found = [line for line in COMMANDS if all(word in line for word in words)]
    assert len(found) == 1, f"{PAGE} must have one command with torchrun and {words}"
    return found[0]


def start(folder, *words, **variables):
    """Start Python in a folder. Return the process, for finished()."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONWARNINGS": "error"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def torchrun(folder, command, *more):
    """Do the same with torchrun: a command, and more words at its end."""
    before, after = map(shlex.split, command.split("torchrun "))
    # The name of this computer may have no address.
    words = ["-m", "torch.distributed.run", "--local-addr", "127.0.0.1", *after, *more]
    words = [ROOT / word if word.startswith("advanced/") else word for word in words]
    return start(folder, *words, **dict(word.split("=") for word in before))


def finished(*processes):
    """Return what each one has printed, when all have ended with status 0."""
    limit = time.monotonic() + SECONDS
    try:
        while time.monotonic() < limit:
            codes = [process.poll() for process in processes]
            if None not in codes or any(codes):
                break
            time.sleep(0.1)
    finally:
        results = [ended(process) for process in processes]
    assert codes == [0] * len(processes), "\n".join(errors for _, errors in results)
    return [output for output, _ in results]


def ended(process):
    """End a process that is still running. Return its output and its errors."""
    process.terminate()  # torchrun then ends those that it has started
    try:
        return process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()


def assert_losses_of_numpy(found, steps):
    """Up to rounding, as in test_rungs_print_the_same_losses.py, and to five digits."""
    assert list(found) == steps
    expected = curve(NUMPY)
    for step, loss in found.items():
        right = expected[step - 1].sqrt()
        bound = 16 * EPS * expected[0].sqrt() + 1e-4 * right
        assert abs(loss**0.5 - right) <= bound, f"step {step}: {loss}"


def test_ddp_in_two_processes_prints_the_losses_of_numpy(tmp_path):
    (output,) = finished(torchrun(tmp_path, command_with("--standalone", DDP)))
    assert_losses_of_numpy(losses(output), [1, *range(50, 501, 50)])


@pytest.mark.parametrize("processes, batch", [("3", "64"), ("2", "4096")])
def test_ddp_takes_any_shares_and_larger_batches(processes, batch, tmp_path):
    """In three processes, 64 rows are 22, 21 and 21."""
    options = ["--steps", "50", "--batch", batch]
    alone = losses(run(DDP, *options).stdout)
    assert alone[50] < alone[1] / 2
    command = command_with("--standalone", DDP).replace("2", processes, 1)
    (output,) = finished(torchrun(tmp_path, command, *options))
    # Rounding in float32 makes less than 1e-4 in 100 steps.
    assert losses(output) == pytest.approx(alone, rel=1e-3)


# Adam makes more of rounding: with another order of operations (foreach=True), already
# the losses of one process differ by 0.3 % after 200 steps.
ADAM = 0.02


def test_fsdp_in_two_processes_prints_the_losses_of_one(tmp_path):
    (output,) = finished(torchrun(tmp_path, command_with("--standalone", FSDP)))
    assert output.startswith("parameters 170240  in each process 85120 85120\n")
    assert losses(output) == pytest.approx(losses(run(FSDP).stdout), rel=ADAM)


def test_two_machines_print_the_losses_of_numpy(tmp_path):
    """Both are this one: the page's command twice, with one process each.

    The store where they meet is ours, so the port is free, and neither of the two takes
    the store away with it while the other one still needs it.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    command = command_with("--rdzv-endpoint")
    command = command.replace("first.example.com:29400", f"localhost:{store.port}")
    command = command.replace("--nproc-per-node 8", "--nproc-per-node 1")
    agents = [torchrun(tmp_path, command, "--steps", "50") for _ in range(2)]
    outputs = finished(*agents)
    assert outputs.count("") == 1, "only one process in all prints"
    assert_losses_of_numpy(losses("".join(outputs)), [1, 50])


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
    (output,) = finished(torchrun(tmp_path, command, "--steps", "150"))
    before, after = output.split("resumed after step 50\n")
    assert list(losses(before)) == [1, 50, 100]
    assert list(losses(after)) == [100, 150]
    assert os.listdir(tmp_path / "shards") == ["step-150"]
    # The network is that of the optim script.
    found = losses(before) | losses(after)
    alone = losses(run(OPTIM).stdout)
    assert found == pytest.approx({step: alone[step] for step in found}, rel=ADAM)


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
        [[DDP, "", "--steps", "1"]],
        [["advanced/common_mistakes.py", "gradients_of_sums", rank] for rank in "01"],
    ],
    ids=lambda commands: commands[0][0],
)
def test_nothing_keeps_the_group_that_is_destroyed(commands, tmp_path):
    """Or its threads meet the end of the interpreter, and now and then it aborts.

    This needs new processes, which have not imported what keeps the group. It cannot be
    asked of FSDP: PyTorch has a cache of sharded tensors, which keeps the group.
    """
    code = ["-c", SAYS_WHETHER_THE_GROUP_IS_GONE]
    processes = [
        start(tmp_path, *code, ROOT / script, *argv) for script, *argv in commands
    ]
    for output in finished(*processes):
        assert output.splitlines()[-1] == "the group is gone"


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
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    with (
        open(f"{folder}/output {rank}", "w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
    ):
        function(*args)
    gc.collect()
    dist.destroy_process_group()


def together(world, function, *args):
    """Call a function in processes that form a group. Return what rank 0 has printed.

    An error of any process is raised here, after the others have been ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        task = world, folder, function, args
        context = mp.start_processes(member, task, world, False, start_method=METHOD)
        limit = time.monotonic() + SECONDS
        try:
            while not context.join(timeout=1):
                assert time.monotonic() < limit, "the processes hang"
        finally:
            for process in context.processes:
                process.kill()
        return Path(folder, "output 0").read_text(encoding="utf-8")


@pytest.fixture
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_same(found, expected):
    """Compare weights, in float64: after some steps, rounding is far below 1e-9."""
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9)


def save_whole(steps, file):
    """Train the sharded model, and save its weights as a whole."""
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    model = char_mlp_fsdp.make_model(mesh)
    for block in model[2:6]:
        assert isinstance(block, FSDPModule), "each block is gathered when it is used"
    char_mlp_fsdp.train(model, steps, "cpu")
    options = StateDictOptions(full_state_dict=True)
    weights = get_model_state_dict(model, options=options)
    if dist.get_rank() == 0:
        torch.save(weights, file)


@pytest.mark.usefixtures("_float64")
def test_fsdp_trains_like_one_process_with_the_whole_model(tmp_path):
    """With three processes, over which 512 rows are not even."""
    torch.manual_seed(0)
    blocks = [char_mlp_fsdp.Block(128) for _ in range(4)]
    first, last = torch.nn.Embedding(256, 16), torch.nn.Linear(128, 256)
    model = torch.nn.Sequential(first, torch.nn.Flatten(), *blocks, last)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    text = "".join(topics[name] for name in sorted(topics))[:100_000]
    data = torch.tensor(list(text.encode()))
    for t in range(1, 5):
        torch.manual_seed(t)
        starts = torch.randint(len(data) - 8, (512, 1))[:, 0].tolist()
        rows = torch.stack([data[start:][:9] for start in starts])
        loss = torch.nn.functional.cross_entropy(model(rows[:, :8]), rows[:, 8])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    together(3, save_whole, 4, tmp_path / "weights.pt")
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
    model = torch.nn.Sequential(
        torch.nn.Linear(20, 100), torch.nn.ReLU(), torch.nn.Linear(100, 3)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - y).square().sum().backward()
        optimizer.step()

    assert os.listdir(folder) == [f"step-{steps}"]
    whole = folder.with_suffix(".pt")
    dcp_to_torch_save(folder / f"step-{steps}", whole)
    assert_same(torch.load(whole)["model"], model.state_dict())


@pytest.mark.usefixtures("_float64")
def test_a_run_goes_on_with_any_number_of_processes(tmp_path):
    """With two, then with one, then with three, over which 64 rows are not even."""
    for world, steps in ((2, 4), (1, 8), (3, 12)):
        output = together(
            world, sharded_checkpoint.train, *task(steps, tmp_path / "shards")
        )
        assert steps == 4 or f"resumed after step {steps - 4}\n" in output
        assert_trained(tmp_path / "shards", steps)


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


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize(
    "victim, name, calls, good",
    [
        (1, "fsync", 0, 2),  # the shards of one process are there
        (0, "fsync", 1, 2),  # all shards are there, but not what says so
        (0, "unlink", 1, 4),  # half of the old checkpoint is gone
    ],
)
def test_a_crash_while_writing_costs_no_checkpoint(victim, name, calls, good, tmp_path):
    folder = tmp_path / "shards"
    together(2, sharded_checkpoint.train, *task(2, folder))
    with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
        together(2, train_and_die, victim, name, calls, *task(4, folder))
    assert len(os.listdir(folder)) == 2
    output = together(1, sharded_checkpoint.train, *task(6, folder))
    assert output.startswith(f"resumed after step {good}\n")
    assert_trained(folder, 6)


def error_of(capfd, monkeypatch, *options):
    """Return the line with which sharded_checkpoint.py refuses to go on."""
    monkeypatch.setattr(sys, "argv", ["sharded_checkpoint.py", *map(str, options)])
    with pytest.raises(SystemExit) as exit:
        sharded_checkpoint.main()
    assert exit.value.code == 2
    assert not dist.is_initialized()
    usage, _, line = capfd.readouterr().err.partition("sharded_checkpoint.py: error: ")
    assert usage.startswith("usage: ")
    assert line.count("\n") == 1
    return line


def files(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_a_full_disk_costs_no_checkpoint(tmp_path, monkeypatch, capfd):
    """Nor a folder of the reader's that is beside it."""
    folder = tmp_path / "shards"
    (folder / "step-by-step").mkdir(parents=True)
    argv = ["sharded_checkpoint.py", "--checkpoint", str(folder), "--steps", "1"]
    monkeypatch.setattr(sys, "argv", argv)
    sharded_checkpoint.main()
    before = files(folder)
    assert folder / "step-1/.metadata" in before

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = error_of(capfd, monkeypatch, "--checkpoint", folder, "--steps", "2")
    assert line.startswith(f"cannot write {folder / 'step-2'}: OSError: ")
    assert "No space left" in line
    assert files(folder) == before


@pytest.mark.parametrize(
    "folder, reason",
    [
        ("file", "FileExistsError"),
        ("no/folder", "FileNotFoundError"),
        ("foreign", "UnpicklingError"),
        ("other", "Size mismatch"),
    ],
)
def test_one_line_says_why_a_folder_is_no_checkpoint(
    folder, reason, tmp_path, capfd, monkeypatch
):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "foreign/step-7").mkdir(parents=True)
    (tmp_path / "foreign/step-7/.metadata").write_text("precious")
    if folder == "other":
        together(1, sharded_checkpoint.train, *task(1, tmp_path / "other"))
    before = files(tmp_path)
    path = tmp_path / folder
    line = error_of(capfd, monkeypatch, "--checkpoint", path)
    assert line.startswith(f"cannot resume from {path}: ")
    assert reason in line
    assert files(tmp_path) == before
