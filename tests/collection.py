"""What every test needs: the scripts, a run of one, the losses that a run prints."""

import ast
import contextlib
import functools
import importlib.util
import io
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
import torch

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
AUTOGRAD = "autograd/two_layer_net_autograd.py"
CUSTOM_FUNCTION = "advanced/two_layer_net_custom_function.py"
SEQUENTIAL = "nn/two_layer_net_sequential.py"
NN = "nn/two_layer_net_nn.py"
OPTIM = "optim/two_layer_net_optim.py"
DYNAMIC = "advanced/dynamic_net.py"
CHARS = "rnn/char_rnn.py"
TENSORFLOW = "advanced/tf_two_layer_net.py"
HOGWILD = "advanced/hogwild_cnn.py"

SECONDS = 300
# A copy: a variable that is set in this process while another one starts would move the
# real environment away under its feet.
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
POOL = ThreadPoolExecutor(max_workers=os.cpu_count())


def source(script):
    return (ROOT / script).read_text(encoding="utf-8")


def options(script):
    """Return {name: its type, or None} for the options in the script's CLI block."""
    found = {}
    for node in ast.walk(ast.parse(source(script))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ".add_argument"
        ):
            types = [word.value for word in node.keywords if word.arg == "type"]
            found[node.args[0].value] = ast.unparse(types[0]) if types else None
    return found


def short(script, device="cpu"):
    """Return the command of a run that takes seconds: few steps, outputs named."""
    known = options(script)
    words = [name for name in known if not name.startswith("--")]
    words += ["--device", device] * ("--device" in known and device is not None)
    words += ["--steps", "50"] * ("--steps" in known)
    words += ["--epochs", "3"] * ("--epochs" in known)
    return script, *words


FAMILY_A = [script for script in SCRIPTS if "randn((D_in, H)" in source(script)]


def skip_if_missing(script):
    """Skip the running test if its script needs TensorFlow, which is not installed."""
    missing = importlib.util.find_spec("tensorflow") is None
    if missing and "import tensorflow" in source(script):
        pytest.skip("TensorFlow is not installed: pip install tensorflow")


def _run(command):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-W", "error", ROOT / command[0], *command[1:]],
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        done.files = os.listdir(folder)
        return done


@functools.cache
def start(command):
    """Start (script, option, ...) as a reader does and return a Future.

    Its result has returncode, stdout, stderr, and files: the names of what it wrote.
    The same command is run once, however many tests look at it.
    """
    return POOL.submit(_run, command)


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


def execute(script, *edits, argv=("--steps", "1"), threads=1):
    """Execute an edited script in this process and return its variables."""
    code = compile(edited(source(script), *edits), script, "exec")
    variables = {"__name__": "__main__", "__file__": str(ROOT / script)}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with mock.patch.object(sys, "argv", [script, *argv]):
            exec(code, variables)  # noqa: S102
    finally:
        torch.set_num_threads(before)
    return variables


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
    with contextlib.redirect_stdout(io.StringIO()) as output:
        execute(script, *EVERY_STEP, *edits, argv=argv, threads=threads)
    found = losses(output.getvalue())
    assert list(found) == list(range(1, steps + 1))
    return torch.tensor(list(found.values()), dtype=torch.float64)
