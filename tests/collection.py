"""What the tests share: the scripts, a run of one, the losses that a run prints.

Programs, which have a main(), are imported by the tests that call them: setup.cfg puts
the seven folders on the path, so "import train_cnn" finds data/train_cnn.py.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import apart
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
DEVICES = ["cpu", "cuda", "mps", "xpu"]
NUMPY = "tensor/two_layer_net_numpy.py"
TENSOR = "tensor/two_layer_net_tensor.py"
TAPE = "autograd/two_layer_net_tape.py"
AUTOGRAD = "autograd/two_layer_net_autograd.py"
ACCUMULATION = "optim/gradient_accumulation.py"
CUSTOM_FUNCTION = "advanced/two_layer_net_custom_function.py"
SEQUENTIAL = "nn/two_layer_net_sequential.py"
NN = "nn/two_layer_net_nn.py"
OPTIM = "optim/two_layer_net_optim.py"
DDP = "advanced/two_layer_net_ddp.py"
NO_SYNC = "advanced/two_layer_net_no_sync.py"
DYNAMIC = "advanced/dynamic_net.py"
TENSORFLOW = "advanced/tf_two_layer_net.py"
TF_FUNCTION = "advanced/tf_two_layer_net_function.py"
COMPILE = "advanced/two_layer_net_compile.py"
CHECKPOINTED = "advanced/two_layer_net_checkpointed.py"

SECONDS = 300
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")


def source(script):
    return (ROOT / script).read_text(encoding="utf-8")


def options(script):
    """Return the names of the script's arguments: --steps, or images.

    One that has no dashes and can be left out is not among them.
    """
    pattern = r'add_argument\(\s*"([^"]+)"(?!, nargs="\?")'
    return re.findall(pattern, source(script))


def short(script, device="cpu"):
    """Return the command of a run that takes seconds: (script, option, ...).

    A file or folder that has to be named gets the name of the argument.
    """
    known = options(script)
    words = [name for name in known if not name.startswith("-")]
    if device != "cpu":
        words += ["--device", device]
    if "--steps" in known:
        words += ["--steps", "50"]
    if "--epochs" in known:
        words += ["--epochs", "3"]
    return script, *words


FAMILY_A = [
    script
    for script in SCRIPTS
    if "randn((D_in, H)" in source(script) and "--steps" in options(script)
]


def expected_status(script):
    """Return 0, or 1 for exercises: nobody has answered them yet."""
    return int(script.endswith("_exercises.py"))


def needs_tensorflow(script):
    return re.search("^ *import tensorflow", source(script), re.MULTILINE) is not None


def needs_triton(script):
    return re.search("^ *import triton$", source(script), re.MULTILINE) is not None


def needs_build(script):
    return "load_inline(" in source(script)


def can_build():
    """Whether there are a C++ compiler and ninja, which pip puts beside python."""
    compiler = os.environ.get("CXX", "cl" if sys.platform == "win32" else "c++")
    path = os.pathsep.join([os.environ["PATH"], sysconfig.get_path("scripts")])
    return all(shutil.which(tool, path=path) for tool in (compiler, "ninja"))


def skip_if_missing(script):
    """Skip the running test if what its script needs is not installed."""
    if needs_tensorflow(script) and not apart.installed("tensorflow"):
        pytest.skip("TensorFlow is not installed: pip install tensorflow")
    if needs_triton(script) and not apart.installed("triton"):
        pytest.skip("Triton is not installed: pip install triton")
    if needs_build(script) and not can_build():
        pytest.skip("a C++ compiler or ninja is not installed: pip install ninja")


# What libraries log on stderr whatever a script does: torch.compile, where NVIDIA's
# compiler is installed and no driver of theirs; TensorFlow whenever it starts; and
# Python's tracker of semaphores, now and then: a DataLoader does not wait for the
# threads that feed its workers, so a program may end while one of them has removed a
# semaphore and not yet told the tracker (1 of 150 runs on a busy machine, Python 3.11).
NOTICE = re.compile(
    r"^(W.*No CUDA runtime is found, using CUDA_HOME.*"
    r"|WARNING: All log messages before absl::InitializeLog\(\) is called .*"
    r"|[IWE]\d{4} [\d:.]+ +\d+ \S+\.cc:\d+\] .*"
    r"|Traceback \(most recent call last\):\n  File \".*resource_tracker\.py\""
    r"[\s\S]*?\nUserWarning: resource_tracker: '/mp-\w+': \[Errno 2\] .*)\n",
    re.MULTILINE,
)


def run_in(folder, script, *options, stdin=None, **variables):
    """Run a script as a reader does, in a process of its own that works in folder.

    Warnings are errors. stdin may be given as text, and more variables of the
    environment. Returns a subprocess.CompletedProcess.
    """
    filters = [f"-W{each}" for each in warned.FILTERS]
    done = subprocess.run(
        [sys.executable, *filters, ROOT / script, *options],
        cwd=folder,
        env=ENVIRONMENT | variables,
        input=stdin or "",
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    done.stderr = NOTICE.sub("", done.stderr)
    return done


@functools.cache
def run(script, *options):
    """Do the same in an empty folder; the result's files are what it wrote there.

    The same command is run once, however many tests look at it.
    """
    skip_if_missing(script)
    with tempfile.TemporaryDirectory() as folder:
        done = run_in(folder, script, *options)
        done.files = os.listdir(folder)
    return done


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

    One that needs TensorFlow is executed in another process than this one; so is one
    that registers an operator in C++, which can be done only once, or that decides how
    Triton works before it is imported.
    """
    task = prepared(script, edits, argv)
    if needs_tensorflow(script):
        return apart.call(apart.outcome, *task)
    if needs_triton(script) or needs_build(script):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, Path(script).name)
            copy.write_text(task[1], encoding="utf-8")
            done = run_in(folder, copy, *argv, OMP_NUM_THREADS=str(threads))
        return done.returncode, done.stdout, done.stderr
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


@functools.cache
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
