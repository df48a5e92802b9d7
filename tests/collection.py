"""What every test needs: the scripts, a run of one, the losses that a run prints."""

import ast
import functools
import inspect
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apart
import forked
import pytest
import torch
import warned

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ["tensor", "autograd", "nn", "optim", "data", "rnn", "advanced"]
SCRIPTS = [
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("*.py"))
]
MISTAKES = [script for script in SCRIPTS if script.endswith("/common_mistakes.py")]
DEVICES = ["cpu", "cuda", "mps", "xpu"]
NUMPY = "tensor/two_layer_net_numpy.py"
TENSOR = "tensor/two_layer_net_tensor.py"
AUTOGRAD = "autograd/two_layer_net_autograd.py"
CUSTOM_FUNCTION = "advanced/two_layer_net_custom_function.py"
SEQUENTIAL = "nn/two_layer_net_sequential.py"
NN = "nn/two_layer_net_nn.py"
OPTIM = "optim/two_layer_net_optim.py"
DDP = "advanced/two_layer_net_ddp.py"
DYNAMIC = "advanced/dynamic_net.py"
CHARS = "rnn/char_rnn.py"
MIXED = "advanced/mixed_precision.py"
PER_SAMPLE = "advanced/per_sample_gradients.py"
PROFILE = "advanced/profile_training.py"
FSDP = "advanced/char_mlp_fsdp.py"
TENSORFLOW = "advanced/tf_two_layer_net.py"
TF_FUNCTION = "advanced/tf_two_layer_net_function.py"
COMPILE = "advanced/two_layer_net_compile.py"
HOGWILD = "advanced/hogwild_cnn.py"

SECONDS = 300
# A copy: a variable that is set in this process while another one starts would move the
# real environment away under its feet.
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
POOL = ThreadPoolExecutor(max_workers=max(1, os.cpu_count() - 1))
STARTED = []


def cached(function):
    """Return function with a cache in which f(1) and f(1, real=False) are one call."""
    signature = inspect.signature(function)
    call = functools.cache(function)

    @functools.wraps(function)
    def bound(*args, **options):
        arguments = signature.bind(*args, **options)
        arguments.apply_defaults()
        return call(*arguments.args, **arguments.kwargs)

    return bound


def source(script):
    return (ROOT / script).read_text(encoding="utf-8")


@functools.cache
def options(script):
    """Return {name: its type, or None} for the options in the script's CLI block.

    A name without dashes is that of an output, which has to be named; what can be left
    out instead, as nargs says, is not among them.
    """
    found = {}
    for node in ast.walk(ast.parse(source(script))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ".add_argument"
        ):
            name = node.args[0].value
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name.startswith("--") or words.get("nargs") != "'?'":
                found[name] = words.get("type")
    return found


def can_fork(script):
    """Whether a fork loses nothing: no processes, no settings before the import."""
    text = source(script)
    processes = re.search(r"__main__|torch\.distributed", text)
    settings = "os.environ[" in text.partition("import torch")[0]
    return forked.CAN_FORK and "torch" in text and not (processes or settings)


def short(script, device="cpu"):
    """Return the command of a run that takes seconds: few steps, outputs named."""
    known = options(script)
    words = [name for name in known if not name.startswith("--")]
    words += ["--device", device] * ("--device" in known and device != "cpu")
    words += ["--steps", "50"] * ("--steps" in known and can_fork(script))
    words += ["--epochs", "3"] * ("--epochs" in known)
    return script, *words


FAMILY_A = [
    script
    for script in SCRIPTS
    if "randn((D_in, H)" in source(script) and "--steps" in options(script)
]


def needs_tensorflow(script):
    return re.search("^ *import tensorflow", source(script), re.MULTILINE) is not None


def skip_if_missing(script):
    """Skip the running test if its script needs TensorFlow, which is not installed."""
    if needs_tensorflow(script) and not apart.installed("tensorflow"):
        pytest.skip("TensorFlow is not installed: pip install tensorflow")


def run_python(command, folder, **variables):
    """Run (script, option, ...) as a reader does, in folder.

    More variables of the environment may be given.
    """
    filters = [f"-W{each}" for each in warned.FILTERS]
    return subprocess.run(
        [sys.executable, *filters, ROOT / command[0], *command[1:]],
        cwd=folder,
        env=ENVIRONMENT | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def run_forked(command, folder):
    """Do the same in a process that has no need to import torch."""
    with tempfile.TemporaryDirectory() as other:
        outputs = [Path(other, name) for name in ("stdout", "stderr")]
        process = forked.start((ROOT / command[0], *command[1:]), folder, outputs)
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, SECONDS)
        texts = [output.read_text(encoding="utf-8") for output in outputs]
        return subprocess.CompletedProcess(command, process.exitcode, *texts)


# By torch.compile, where NVIDIA's compiler is installed and no driver of theirs.
NOTICE = re.compile(r"^W.*No CUDA runtime is found, using CUDA_HOME.*\n", re.MULTILINE)


def _run(command, real):
    forked_run = can_fork(command[0]) and not real
    with tempfile.TemporaryDirectory() as folder:
        done = (run_forked if forked_run else run_python)(command, folder)
        done.stderr = NOTICE.sub("", done.stderr)
        done.files = os.listdir(folder)
        return done


@cached
def start(command, real=False):
    """Start (script, option, ...) as a reader does and return a Future.

    Its result has returncode, stdout, stderr, and files: the names of what it wrote.
    The same command is run once, however many tests look at it. Importing torch takes
    longer than most scripts, so they are forked where that changes nothing, unless real
    is true.
    """
    STARTED.append((command, real))
    return POOL.submit(_run, command, real)


@cached
def finished(command, real=False):
    """Return what comes of start(). This process is not idle while others run."""
    future = start(command, real)
    if future.cancel():  # it was still waiting its turn
        return _run(command, real)
    while STARTED and not future.done():
        finished(*STARTED.pop())
    return future.result()


def losses(text):
    """Return {step: loss} for the lines "step    1  loss 2.5020e+07" in text.

    A line may begin with epoch instead of step, and have more to say after the loss.
    """
    lines = re.findall(r"^(?:step|epoch) +(\d+)  loss (\S+)", text, re.MULTILINE)
    return {int(step): float(loss) for step, loss in lines}


def edited(text, *edits):
    """Return text with every (old, new) replaced; every old must be there."""
    for old, new in edits:
        assert old in text, f"the test edits {old!r}, which the script does not contain"
        text = text.replace(old, new)
    return text


# The graph is made all the same, but run as it is: C++ would take seconds.
WITHOUT_CPP = ("@torch.compile\n", '@torch.compile(backend="aot_eager")\n')


def prepared(script, edits, argv):
    """Return the arguments of apart.execute() for an edited script."""
    text = edited(source(script), *edits).replace(*WITHOUT_CPP)
    return script, text, list(argv), str(ROOT / script)


def execute(script, *edits, argv=("--steps", "1"), threads=1):
    """Execute an edited script in this process and return its variables."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        return apart.execute(*prepared(script, edits, argv))
    finally:
        torch.set_num_threads(before)


def outcome(script, *edits, argv=(), threads=1):
    """Execute an edited script and return (exit status, stdout, stderr).

    One that needs TensorFlow is executed in another process than this one.
    """
    task = prepared(script, edits, argv)
    if needs_tensorflow(script):
        return apart.call(apart.outcome, *task)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        return apart.outcome(*task)
    finally:
        torch.set_num_threads(before)


EVERY_STEP = [("t == 1 or t % 50 == 0", "True"), (":.4e}", ":.17e}")]
IN_FLOAT64 = [
    ("np.float32)", "np.float32).astype(np.float64)"),
    ("tf.float32", "tf.float64"),
    (".to(args.device)", ".to(args.device, torch.float64)"),
]


@cached
def curve(script, *edits, steps=500, threads=1, dtype=torch.float32):
    """Return the losses of all steps as a float64 tensor, in full precision.

    In float64 a script starts from the same numbers as in float32.
    """
    if dtype == torch.float64:
        edits += tuple(edit for edit in IN_FLOAT64 if edit[0] in source(script))
    skip_if_missing(script)
    argv = "--steps", str(steps)
    code, output, errors = outcome(
        script, *EVERY_STEP, *edits, argv=argv, threads=threads
    )
    assert code == 0, errors
    found = losses(output)
    assert list(found) == list(range(1, steps + 1))
    return torch.tensor(list(found.values()), dtype=torch.float64)
