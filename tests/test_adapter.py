"""Low-rank adapters start as the base network, leave it alone, and can be merged."""

import re

import numpy as np
import pytest
import torch
from collection import run
from low_rank_adapter import (
    LEARNING_RATE,
    LowRankAdapter,
    loss_of,
    train,
    with_adapters,
    without_adapters,
)
from torch import nn

SCRIPT = "nn/low_rank_adapter.py"


@pytest.fixture
def base():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))


@pytest.fixture
def data():
    """Inputs (8, 30) and targets (8, 10)."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, size, generator=generator) for size in (30, 10)]


def bits(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def trained(base, data, rank=3, alpha=6):
    """Return adapters after 50 steps, in float64."""
    model = with_adapters(base, rank, alpha).double()
    for _ in train(model, *[values.double() for values in data], steps=50):
        pass
    return model


@pytest.mark.parametrize("rank", [1, 4, 40])
def test_step_1_has_exactly_the_loss_of_the_base_network(base, data, rank):
    model = with_adapters(base, rank, alpha=2 * rank)
    assert torch.equal(model(data[0]), base(data[0]))
    assert next(train(model, *data, steps=1)) == (1, loss_of(base, *data).item())
    for layer in model[0], model[2]:
        assert layer.A.count_nonzero() == layer.A.numel(), "A = B = 0 learns nothing"


def test_A_starts_as_the_weight_of_a_linear_layer():
    linear = nn.Linear(30, 20)
    torch.manual_seed(0)
    expected = nn.Linear(30, 3, bias=False).weight
    torch.manual_seed(0)
    assert torch.equal(LowRankAdapter(linear, rank=3, alpha=6).A, expected)


def test_frozen_weights_are_the_same_bits_afterwards(base, data):
    before = bits(base)
    model = with_adapters(base, rank=3, alpha=6)
    adapters = bits(model)
    for _ in train(model, *data, steps=50):
        pass
    layers = nn.Sequential(model[0].linear, nn.ReLU(), model[2].linear)
    for after in bits(layers), bits(base):
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
    for name, value in bits(model).items():
        assert torch.equal(value, adapters[name]) == (".linear." in name)


def test_only_adapters_are_trainable(base):
    names = [
        name
        for name, param in with_adapters(base, 3, 6).named_parameters()
        if param.requires_grad
    ]
    assert names == ["0.A", "0.B", "2.A", "2.B"]
    assert all(param.requires_grad for param in base.parameters())


def test_merged_computes_what_unmerged_does(base, data):
    """Up to rounding: in float64, of about 1e-16 for each of 30 products."""
    model = trained(base, data)
    x = data[0].double()
    before = bits(model)
    for _ in range(2):  # merging changes nothing, so it can be done twice
        merged = without_adapters(model)
        torch.testing.assert_close(merged(x), model(x), rtol=1e-12, atol=1e-13)
    assert [type(layer) for layer in merged] == [nn.Linear, nn.ReLU, nn.Linear]
    after = bits(model)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_update_of_a_weight_has_the_rank(base, data):
    """Its singular values after the third are rounding; biases do not change."""
    merged = without_adapters(trained(base, data, rank=3))
    for old, new in (base[0], merged[0]), (base[2], merged[2]):
        update = (new.weight - old.weight.double()).detach().numpy()
        values = np.linalg.svd(update, compute_uv=False)
        assert values[2] > 1e-6 and values[3] < 1e-13
        assert torch.equal(new.bias, old.bias.double())


def test_adapter_and_its_gradients_are_those_of_numpy():
    """With W + alpha / r * B A written out, and its gradient by the chain rule."""
    rng = np.random.default_rng(0)
    x, grad = rng.standard_normal((8, 5)), rng.standard_normal((8, 4))
    W, bias = rng.standard_normal((4, 5)), rng.standard_normal(4)
    A, B = rng.standard_normal((2, 5)), rng.standard_normal((4, 2))

    layer = LowRankAdapter(nn.Linear(5, 4), rank=2, alpha=3).double()
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor(W))
        layer.linear.bias.copy_(torch.tensor(bias))
        layer.A.copy_(torch.tensor(A))
        layer.B.copy_(torch.tensor(B))
    output = layer(torch.tensor(x))
    output.backward(torch.tensor(grad))

    np.testing.assert_allclose(output.detach(), x @ (W + 1.5 * B @ A).T + bias)
    grad_W = grad.T @ x
    np.testing.assert_allclose(layer.A.grad, 1.5 * B.T @ grad_W)
    np.testing.assert_allclose(layer.B.grad, 1.5 * grad_W @ A.T)
    assert layer.linear.weight.grad is None and layer.linear.bias.grad is None


def test_losses_are_those_of_numpy(base, data):
    """Of 20 steps, with B = 0 at first."""
    model = with_adapters(base, rank=3, alpha=6).double()
    x, y = (values.double() for values in data)
    W1, b1, W2, b2 = (p.detach().double().numpy() for p in base.parameters())
    A1, A2 = (model[i].A.detach().numpy().copy() for i in (0, 2))
    B1, B2 = np.zeros((20, 3)), np.zeros((10, 3))

    expected = []
    for _ in range(20):
        V1, V2 = W1 + 2 * B1 @ A1, W2 + 2 * B2 @ A2
        h = np.maximum(x.numpy() @ V1.T + b1, 0)
        error = h @ V2.T + b2 - y.numpy()
        expected.append(np.square(error).sum())
        grad_V2 = 2 * error.T @ h
        grad_V1 = (2 * error @ V2 * (h > 0)).T @ x.numpy()
        A1, B1 = (
            A1 - LEARNING_RATE * 2 * B1.T @ grad_V1,
            B1 - LEARNING_RATE * 2 * grad_V1 @ A1.T,
        )
        A2, B2 = (
            A2 - LEARNING_RATE * 2 * B2.T @ grad_V2,
            B2 - LEARNING_RATE * 2 * grad_V2 @ A2.T,
        )
    found = [loss for _, loss in train(model, x, y, steps=20)]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert found[-1] < found[0]


# What the script prints

NUMBER = r"(\d\.\d+e[+-]\d+)"


def printed(rank):
    """Return {line up to the loss: loss}, for 500 steps."""
    done = run(SCRIPT, "--rank", str(rank))
    assert (done.returncode, done.stderr) == (0, "")
    lines = re.findall(rf"^(.+?)  loss {NUMBER}", done.stdout, re.MULTILINE)
    return {name.strip(): float(loss) for name, loss in lines}


def test_prints_the_losses_that_the_lesson_is_about():
    """Equal to the last digit, but for the merged one, which is rounded otherwise."""
    found = printed(rank=4)
    assert found["step    1"] == found["base network, new targets"]
    assert found["adapters zeroed"] == found["base network, old targets"]
    merged, unmerged = found["adapters merged"], found["with adapters"]
    assert merged == pytest.approx(unmerged, rel=1e-3)
    assert found["step  500"] < found["step    1"] / 100


def test_counts_the_parameters():
    done = run(SCRIPT, "--rank", "4")
    adapters = 4 * (1000 + 100) + 4 * (100 + 10)
    frozen = 1000 * 100 + 100 + 100 * 10 + 10
    assert f"trained parameters {adapters}, frozen {frozen}" in done.stdout


def test_rank_1_is_too_low_for_four_signs():
    """As the page says: four outputs of opposite sign are an update of rank 4."""
    assert printed(rank=1)["step  500"] > 200
