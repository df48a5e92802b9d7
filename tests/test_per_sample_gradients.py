"""The gradients of all samples at once are those of one sample after the other."""

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


def flat(grads):
    """Return a dictionary of gradients as one matrix, (N, parameters), in float64."""
    return torch.cat([grad.flatten(1) for grad in grads.values()], dim=1).double()


def one_by_one(model, inputs, labels):
    """Return the gradient of each sample in float64, as a matrix (N, parameters)."""
    model = nn.Sequential(*model).double()
    rows = []
    for i in range(len(inputs)):
        loss = cross_entropy(model(inputs[i, None].double()), labels[i, None])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    model.float()
    return torch.stack(rows)


def test_each_gradient_is_that_of_its_own_backward_pass():
    model, inputs, labels, _, _ = trained(seed=0)
    expected = one_by_one(model, inputs, labels)
    for way in (vmapped, script.sample_gradients_by_loop):
        found = way(model, inputs, labels)
        for name, w in model.named_parameters():
            assert found[name].shape == (256, *w.shape)
        # Rounding in float32 of gradients that are at most 10.
        torch.testing.assert_close(flat(found), expected, rtol=1e-4, atol=2e-6)
    lengths = script.norms(found).double()
    torch.testing.assert_close(lengths, expected.norm(dim=1), rtol=1e-4, atol=1e-6)


def test_losses_are_those_of_plain_sgd():
    """As the mean of the gradients is the gradient of the mean."""
    *_, expected = trained(seed=0, steps=100)
    found = losses(run(PATH).stdout)
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


def test_script_names_the_sample_with_the_wrong_label():
    _, _, wrong = script.make_data()
    lines = run(PATH).stdout.splitlines()
    place = lines.index(f"the wrong label is that of sample {wrong}")
    assert lines[place + 1].startswith(f"sample {wrong:3d}  norm ")
