"""The gradients of all samples at once are those of one sample after the other."""

import sys
from unittest import mock

import per_sample_gradients as script
import pytest
import torch
from collection import losses, run
from torch import nn
from torch.nn.functional import cross_entropy

PATH = "advanced/per_sample_gradients.py"


def trained(seed, steps=50):
    """Return a network trained by plain SGD on the script's data, and the data."""
    inputs, labels, wrong = script.make_data(seed)
    model = nn.Sequential(nn.Linear(50, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = {}
    for t in range(1, steps + 1):
        loss = cross_entropy(model(inputs), labels)
        found[t] = loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, inputs, labels, wrong, found


def vmapped(model, inputs, labels):
    params = {name: w.detach() for name, w in model.named_parameters()}
    return script.sample_gradients(model, params, inputs, labels)


def test_each_gradient_is_that_of_its_own_backward_pass():
    """Compared as one matrix, (N, parameters), with gradients computed in float64."""
    model, inputs, labels, _, _ = trained(seed=0)
    found = [
        way(model, inputs, labels) for way in (vmapped, script.sample_gradients_by_loop)
    ]
    for name, w in model.named_parameters():
        assert found[0][name].shape == found[1][name].shape == (256, *w.shape)
    lengths = script.norms(found[0]).double()

    model.double()
    rows = []
    for i in range(256):
        loss = cross_entropy(model(inputs[i, None].double()), labels[i, None])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    expected = torch.stack(rows)
    for grads in found:
        matrix = torch.cat([grad.flatten(1) for grad in grads.values()], dim=1)
        # Rounding in float32 of gradients that are at most 10.
        torch.testing.assert_close(matrix.double(), expected, rtol=1e-4, atol=2e-6)
    torch.testing.assert_close(lengths, expected.norm(dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("path", [PATH])
def test_losses_are_those_of_plain_sgd(path):
    """As the mean of the gradients is the gradient of the mean."""
    *_, expected = trained(seed=0, steps=100)
    found = losses(run(path).stdout)
    assert list(found) == [1, 50, 100]
    assert found == pytest.approx({t: expected[t] for t in found}, rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_largest_gradient_belongs_to_the_only_wrong_label(seed):
    model, inputs, labels, wrong, _ = trained(seed)
    torch.manual_seed(seed)
    right = torch.randint(10, (256,))
    assert (labels != right).nonzero().tolist() == [[wrong]]
    lengths = script.norms(vmapped(model, inputs, labels))
    assert lengths.argmax() == wrong


@pytest.mark.parametrize("path", [PATH])
def test_script_names_the_sample_with_the_wrong_label(path):
    _, _, wrong = script.make_data()
    lines = run(path).stdout.splitlines()
    place = lines.index(f"the wrong label is that of sample {wrong}")
    assert lines[place + 1].startswith(f"sample {wrong:3d}  norm ")


def test_speed_compares_the_fastest_calls(monkeypatch, capsys):
    """As if those of the loop took 10, 15 and 20 seconds, all others 2, 3 and 8."""

    def repeat(call, number, repeat):
        with mock.patch.object(script, "sample_gradients_by_loop") as loop:
            call()
        return [15, 10, 20] if loop.called else [3, 2, 8]

    monkeypatch.setattr(script.timeit, "repeat", repeat)
    monkeypatch.setattr(sys, "argv", ["per_sample_gradients.py", "--steps", "1"])
    script.main()
    assert capsys.readouterr().out.endswith("vmap compared with the loop  speed 5.0\n")
