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

PAGE = "advanced/README.md"
FSDP = "advanced/char_mlp_fsdp.py"
CHECKPOINT = "advanced/sharded_checkpoint.py"
EPS = torch.finfo(torch.float32).eps


# Scripts, started by torchrun

COMMANDS = [
    line
    for match in pages.FENCE.finditer(pages.text(PAGE))
    if match["kind"] == "bash"
    for line in match["body"].replace("\\\n", "").splitlines()
    if "torchrun " in line
]
STANDALONE = [line for line in COMMANDS if "--standalone" in line]


def torchrun(folder, command, *more):
    """Start a command with torchrun in a folder. Return the process, for finished().

    Variables of the environment may come first, and more words at the end.
    """
    before, after = map(shlex.split, command.split("torchrun "))
    # The name of this computer may have no address.
    words = ["-m", "torch.distributed.run", "--local-addr", "127.0.0.1", *after, *more]
    words = [ROOT / word if word.startswith("advanced/") else word for word in words]
    variables = dict(word.split("=") for word in before)
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONWARNINGS": "error"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


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


EVERY_50 = [1, *range(50, 501, 50)]


@pytest.mark.parametrize("command", STANDALONE)
def test_two_processes_print_the_losses_of_one(command, tmp_path):
    """Each command as the page shows it. It ends with status 0, too: a clean end."""
    (script,) = re.findall(r"advanced/\S+\.py", command)
    (output,) = finished(torchrun(tmp_path, command))
    if script == DDP:
        assert_losses_of_numpy(losses(output), EVERY_50)
    else:
        # Adam makes more of rounding: the losses of one process differ by 0.3 % when
        # Adam computes in another order (foreach=True).
        alone = losses(run(OPTIM if script == CHECKPOINT else script).stdout)
        assert losses(output) == pytest.approx(alone, rel=0.02)


def test_each_script_is_started_by_a_command_of_the_page():
    for script in (DDP, FSDP, CHECKPOINT):
        assert any(script in command for command in STANDALONE), f"{script}: see {PAGE}"


def test_ddp_may_have_shares_of_different_sizes(tmp_path):
    """64 rows are 22, 21 and 21."""
    command = f"torchrun --standalone --nproc-per-node 3 {DDP}"
    (output,) = finished(torchrun(tmp_path, command))
    assert_losses_of_numpy(losses(output), EVERY_50)


def test_ddp_learns_larger_batches_as_well(tmp_path):
    options = ["--steps", "50", "--batch", "4096"]
    alone = losses(run(DDP, *options).stdout)
    assert alone[50] < alone[1] / 2
    command = f"torchrun --standalone --nproc-per-node 2 {DDP}"
    (output,) = finished(torchrun(tmp_path, command, *options))
    assert losses(output) == pytest.approx(alone, rel=1e-3)


def test_two_machines_print_the_losses_of_numpy(tmp_path):
    """Both are this one: the page's command twice, with one process each.

    The store where they meet is ours, so the port is free, and neither of the two takes
    the store away with it while the other one still needs it.
    """
    (command,) = [c for c in COMMANDS if "--rdzv-endpoint" in c]
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
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
    (command,) = [line for line in COMMANDS if "--max-restarts" in line]
    command = command.replace(CHECKPOINT, "killed_once.py")
    (output,) = finished(torchrun(tmp_path, command, "--steps", "150"))
    before, after = output.split("resumed after step 50\n")
    assert list(losses(before)) == [1, 50, 100]
    assert list(losses(after)) == [100, 150]
    alone = losses(run(OPTIM).stdout)
    for found in (losses(before), losses(after)):
        expected = {step: alone[step] for step in found}
        assert found == pytest.approx(expected, rel=0.02)  # as above
    assert os.listdir(tmp_path / "shards") == ["step-150"]


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
        [[FSDP, "", "--steps", "1"]],
        [[CHECKPOINT, "", "--steps", "1", "--checkpoint", "shards"]],
        [["advanced/common_mistakes.py", "gradients_of_sums", rank] for rank in "01"],
    ],
    ids=lambda commands: commands[0][0],
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
    with open(f"{folder}/output {rank}", "w", encoding="utf-8") as file:
        with contextlib.redirect_stdout(file):
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
