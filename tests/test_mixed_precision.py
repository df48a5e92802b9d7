"""Autocast does what rounding by hand does, and float32 is kept where it is said."""

import contextlib
import io
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from collection import (
    ENVIRONMENT,
    EVERY_STEP,
    MIXED,
    OPTIM,
    PER_SAMPLE,
    ROOT,
    SECONDS,
    curve,
    execute,
    finished,
    losses,
)


def train(steps):
    """Return the script's variables and its losses in both columns, at every step."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        script = execute(MIXED, *EVERY_STEP, argv=("--steps", str(steps)))
    text = output.getvalue().replace("bfloat16 {losses[1]:.4e}", "")
    column = re.findall(r"^step .*  bfloat16 (\S+)", text, re.MULTILINE)
    columns = list(losses(text).values()), [float(loss) for loss in column]
    return script, *(torch.tensor(c, dtype=torch.float64) for c in columns)


@pytest.fixture(scope="module")
def trained():
    return train(50)


def rounded(tensor):
    """Round to 8 binary digits and half to even, on the bits of float32, as float64."""
    bits = np.atleast_1d(tensor.detach().float().numpy()).view(np.uint32).astype(int)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    values = bits.astype(np.uint32).view(np.float32).astype(np.float64)
    return torch.from_numpy(values).reshape(tensor.shape)


def by_hand(x, y, w1, b1, w2, b2):
    """Return the loss and the gradients of one step, computed in float64.

    Every input and every result of a product is rounded to bfloat16.
    """
    x, w1, b1, w2, b2 = map(rounded, (x, w1, b1, w2, b2))
    h = rounded(x @ w1.T + b1).clamp(min=0)
    error = rounded(h @ w2.T + b2) - y
    grad_y_pred = rounded(2 * error)
    grad_h = rounded(grad_y_pred @ w2) * (h > 0)
    grads = [grad_h.T @ x, grad_h.sum(0), grad_y_pred.T @ h, grad_y_pred.sum(0)]
    return error.square().sum(), [rounded(grad) for grad in grads]


def test_first_step_is_the_one_by_hand():
    """The gradients, too: they differ less than those in float32 by far."""
    script, in_float32, in_bfloat16 = train(1)
    torch.manual_seed(0)
    start = torch.nn.Linear(1000, 100), torch.nn.Linear(100, 10)
    weights = [w for layer in start for w in layer.parameters()]
    loss, grads = by_hand(script["x"], script["y"], *weights)
    assert loss.item() == pytest.approx(in_bfloat16.item(), rel=1e-5)
    assert loss.item() != pytest.approx(in_float32.item(), rel=5e-5)

    def distances(model):
        pairs = zip(model.parameters(), grads, strict=True)
        return torch.stack([(w.grad - g).norm() / g.norm() for w, g in pairs])

    (_, float32, _), (_, mixed, _) = script["runs"]
    assert (distances(mixed) < 2e-4).all()
    assert (distances(float32) > 1e-3).all()


def test_losses_are_those_of_training_by_hand(trained):
    script, _, column = trained
    torch.manual_seed(0)
    layers = torch.nn.Linear(1000, 100), torch.nn.Linear(100, 10)
    weights = [w for layer in layers for w in layer.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-4)
    expected = []
    for _ in column:
        loss, grads = by_hand(script["x"], script["y"], *weights)
        expected.append(loss)
        for w, grad in zip(weights, grads, strict=True):
            w.grad = grad.float()
        optimizer.step()
    torch.testing.assert_close(column, torch.stack(expected), rtol=5e-4, atol=0)


def test_other_column_is_the_training_in_float32(trained):
    torch.testing.assert_close(trained[1], curve(OPTIM, steps=50), rtol=1e-6, atol=0)


def test_float32_is_kept_in_weights_gradients_and_optimizer(trained):
    for _, model, optimizer in trained[0]["runs"]:
        for w in model.parameters():
            kept = [w, w.grad, *optimizer.state[w].values()]
            assert {tensor.dtype for tensor in kept} == {torch.float32}


def test_dtypes_shown_are_those_under_autocast(trained):
    """On a CPU: what is not on one of autocast's lists keeps the dtype of its input."""
    tensors = trained[0]["tensors"]
    shown = {name: tensor.dtype for name, tensor in tensors.items()}
    assert [n for n in shown if shown[n] == torch.bfloat16] == list(shown)[:4]
    assert [n for n in shown if shown[n] == torch.float32] == list(shown)[4:]
    assert torch.equal(tensors["softmax"], tensors["output of Linear"].softmax(1))
    assert torch.equal(tensors["sum"], tensors["output of Linear"].sum())


def test_speed_compares_float32_with_bfloat16(trained):
    ways = [[a.dtype for a in way.args] for way in trained[0]["ways"]]
    assert ways == [[torch.float32] * 2, [torch.bfloat16] * 2]


def test_predictions_in_bfloat16_end_above_the_rounding_of_the_targets(trained):
    """The run is the one that the README shows."""
    text = finished((MIXED,)).stdout
    best = float(re.search(r"^y rounded  bfloat16 (\S+)", text, re.MULTILINE)[1])
    y = trained[0]["y"]
    assert best == pytest.approx((rounded(y) - y).square().sum().item(), rel=1e-3)
    last = re.search(r"^step  500  loss (\S+)  bfloat16 (\S+)", text, re.MULTILINE)
    in_float32, in_bfloat16 = map(float, last.groups())
    assert in_float32 < best / 100
    assert best < in_bfloat16 < 10 * best


class FakeClock:
    """A clock by which the two ways take these seconds, in turns."""

    def __init__(self, *seconds):
        self.now, self.seconds, self.readings = 0.0, seconds, 0

    def __call__(self):
        if self.readings % 2:  # the end of a call
            self.now += self.seconds[self.readings // 2 % len(self.seconds)]
        self.readings += 1
        return self.now


@pytest.mark.parametrize("script", [MIXED, PER_SAMPLE])
def test_speed_is_that_of_the_fastest_calls(script, monkeypatch, capsys):
    """In turns, the first way takes 6 or 3 seconds, the second 9 or 12."""
    monkeypatch.setattr(time, "perf_counter", FakeClock(6, 9, 3, 12))
    execute(script, argv=("--steps", "1"))
    speed = float(capsys.readouterr().out.split("speed ")[1])
    assert speed == {MIXED: 0.33, PER_SAMPLE: 3.0}[script]


RUN = """
import runpy
import sys

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
sys.exit("torch.utils.cpp_extension" in sys.modules)
"""


@pytest.mark.parametrize("script", [MIXED, PER_SAMPLE])
def test_nothing_looks_for_a_compiler_of_cuda(script):
    """Where there is one, but no GPU, a line on stderr would say so."""
    command = [sys.executable, "-W", "error", "-c", RUN, ROOT / script, "--steps", "1"]
    run = subprocess.run(
        command,
        env=ENVIRONMENT | {"CUDA_HOME": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
