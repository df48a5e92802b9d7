"""The gradients of all samples at once are those of one sample after the other."""

import contextlib
import io

import pytest
import torch
from collection import EVERY_STEP, PER_SAMPLE, execute, losses
from torch.nn.functional import cross_entropy


@pytest.fixture(scope="module")
def script():
    """The variables of a run of 50 steps, and what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        variables = execute(PER_SAMPLE, *EVERY_STEP, argv=("--steps", "50"))
    return variables | {"output": output.getvalue()}


def trained_model(script):
    """Return the script's network as a plain one in float64, and the data."""
    model = torch.nn.Sequential(*script["layers"])
    model.load_state_dict(script["params"])
    return model.double(), script["x"].double(), script["y"]


@pytest.fixture(scope="module")
def one_by_one(script):
    """The gradient of each sample from a backward() of its own, (N, parameters)."""
    model, x, y = trained_model(script)
    rows = []
    for i in range(len(x)):
        model.zero_grad()
        cross_entropy(model(x[i, None]), y[i, None]).backward()
        rows.append(torch.cat([w.grad.flatten() for w in model.parameters()]))
    return torch.stack(rows)


def flat(grads):
    """Return a dictionary of gradients as one matrix, (N, parameters), in float64."""
    return torch.cat([grad.flatten(1) for grad in grads.values()], dim=1).double()


@pytest.mark.parametrize("name", ["grads", "by_loop"])
def test_each_gradient_is_that_of_its_own_backward_pass(script, one_by_one, name):
    assert script[name].keys() == script["params"].keys()
    for key, w in script["params"].items():
        assert script[name][key].shape == (len(script["y"]), *w.shape)
    torch.testing.assert_close(flat(script[name]), one_by_one, rtol=1e-4, atol=2e-6)


def test_mean_of_the_gradients_is_the_gradient_of_the_batch(script):
    model, x, y = trained_model(script)
    grads = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
    batch = torch.cat([grad.flatten() for grad in grads])
    mean = flat(script["grads"]).mean(0)
    torch.testing.assert_close(mean, batch, rtol=1e-4, atol=1e-7)


def test_losses_are_those_of_plain_sgd(script):
    torch.manual_seed(0)
    torch.randint(10, (256,))  # the script draws its data before the weights
    torch.randn(10, 50), torch.randn(256, 50), torch.randint(256, ())
    layers = torch.nn.Linear(50, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = {}
    for t in range(1, 51):
        loss = cross_entropy(model(script["x"]), script["y"])
        expected[t] = loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses(script["output"]) == pytest.approx(expected, rel=1e-4)


def test_norms_are_the_lengths_of_the_gradients(script, one_by_one):
    norms = script["norms"].double()
    torch.testing.assert_close(norms, one_by_one.norm(dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_largest_gradient_belongs_to_the_only_wrong_label(seed, capsys):
    start = ("manual_seed(0)", f"manual_seed({seed})")
    script = execute(PER_SAMPLE, start, argv=("--steps", "50"))
    torch.manual_seed(seed)
    right = torch.randint(script["classes"], (script["N"],))
    assert (script["y"] != right).nonzero().tolist() == [[script["wrong"]]]
    first = capsys.readouterr().out.partition("\nsample")[2]
    assert first.split()[0] == str(script["wrong"])


def test_script_stops_if_the_loop_finds_something_else():
    with pytest.raises(AssertionError, match="not close"):
        execute(PER_SAMPLE, ("w.clone()", "(w * 1.01)"), argv=("--steps", "1"))
