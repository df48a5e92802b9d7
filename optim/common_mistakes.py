"""Make the classic mistakes with optimizers, see what happens, and mend them.

Each function is a mistake, and its docstring is the question that it leads to. The
first ones are those of which PyTorch says nothing. What is claimed is asserted, so with
another version of PyTorch this script says which lessons are out of date.
"""

import argparse
import copy
import io
import math
import pickle
import sys
import traceback
import warnings
from inspect import isfunction

import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam
from torch.optim.lr_scheduler import StepLR


def gradients_cleared_too_late():
    """Why does my loss stay exactly the same?"""
    w = torch.tensor(3.0, requires_grad=True)
    optimizer = SGD([w], lr=0.1)
    # Wrong: zero_grad() between backward() and step(). PyTorch says nothing.
    w.square().backward()
    optimizer.zero_grad()
    optimizer.step()
    wrong = w.item()
    assert wrong == 3
    print(f"wrong: {wrong:.1f}, as before")
    # Right: zero_grad(), backward(), step().
    optimizer.zero_grad()
    w.square().backward()
    optimizer.step()
    right = w.item()
    assert round(right, 4) == 2.4
    print(f"right: {right:.1f}")
    print("why:   step() leaves alone what has no gradient")


def parameters_made_later():
    """Why does the layer that I replaced not learn?"""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))

    def change(optimizer):
        before = model[1].weight.detach().clone()
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        return (model[1].weight - before).abs().max().item()

    # Wrong: the optimizer has the old layer's parameters. PyTorch says nothing.
    optimizer = SGD(model.parameters(), lr=0.1)
    model[1] = nn.Linear(4, 3)
    wrong = change(optimizer)
    assert wrong == 0
    print(f"wrong: its weights changed by {wrong:.4f}")
    # Right: first the network, then the optimizer; or add_param_group.
    right = change(SGD(model.parameters(), lr=0.1))
    assert right > 0.01
    print(f"right: by {right:.4f}")
    print("why:   parameters() was asked once, when the optimizer was made")


def model_moved_from_meta():
    """Why does nothing learn after I moved the model?"""
    with torch.device("meta"):
        model = nn.Linear(2, 1)  # shapes alone, as for a model that is loaded later
    # Wrong: the optimizer before to_empty(). PyTorch says nothing.
    optimizer = SGD(model.parameters(), lr=0.1)
    model.to_empty(device="cpu")
    wrong = optimizer.param_groups[0]["params"][0] is model.weight
    assert wrong is False
    print("wrong: the optimizer has the model's weight:", wrong)
    # Right: afterwards.
    optimizer = SGD(model.parameters(), lr=0.1)
    right = optimizer.param_groups[0]["params"][0] is model.weight
    assert right is True
    print("right: the optimizer has the model's weight:", right)
    model.to(torch.float64)
    assert optimizer.param_groups[0]["params"][0] is model.weight
    print("why:   parameters on the meta device are replaced. Otherwise to() changes")
    print("       them in place, and the order matters only once there is a state")


def clipped_too_early():
    """Why does my loss explode, although I clip the gradients?"""
    w = torch.ones(2, requires_grad=True)
    scale = torch.tensor([30.0, 40.0])
    # Wrong: before backward() there is nothing to clip. PyTorch says nothing.
    nn.utils.clip_grad_norm_([w], max_norm=1)
    (scale * w).sum().backward()
    wrong = w.grad.norm().item()
    assert wrong == 50
    print(f"wrong: a gradient of length {wrong:.1f}")
    # Right: backward(), clip, step().
    w.grad = None
    (scale * w).sum().backward()
    nn.utils.clip_grad_norm_([w], max_norm=1)
    right = w.grad.norm().item()
    assert 0.99 < right <= 1
    print(f"right: of length {right:.1f}")
    print("why:   clipping changes the gradients that are there when it is called")


def resumed_without_state():
    """Why does my loss jump when I go on with a model that I saved?"""

    w = torch.zeros(1, requires_grad=True)

    def train(optimizer, start):
        w.detach().fill_(start)
        for _ in range(10):
            w.grad = 2 * (w.detach() - 1)  # of (w - 1) ** 2
            optimizer.step()
        return w.item()

    optimizer = Adam([w], lr=0.1)
    saved, state = train(optimizer, 0), copy.deepcopy(optimizer.state_dict())
    expected = train(optimizer, saved)
    # Wrong: only the weights are restored. PyTorch says nothing.
    wrong = train(Adam([w], lr=0.1), saved) - expected
    assert abs(wrong) > 0.01
    print(f"wrong: the weight is {wrong:+.4f} off")
    # Right: the optimizer's state as well, and that of the scheduler.
    optimizer = Adam([w], lr=0.1)
    optimizer.load_state_dict(state)
    right = train(optimizer, saved) - expected
    assert right == 0
    print(f"right: {right:+.4f}\nwhy:   Adam goes by averages of earlier gradients")


def decay_on_everything():
    """Why does weight decay make my network worse?"""

    def scale_after(groups):
        norm = nn.LayerNorm(4)
        optimizer = SGD(groups(norm), lr=0.1, weight_decay=0.1)
        for _ in range(100):
            norm.weight.grad = torch.zeros(4)  # the loss is content with the scale 1
            optimizer.step()
        return norm.weight[0].item()

    # Wrong: decay for all parameters, scales and biases too. PyTorch says nothing.
    wrong = scale_after(lambda norm: norm.parameters())
    assert round(wrong, 4) == 0.366
    print(f"wrong: a scale of {wrong:.4f}")
    # Right: a group of its own for what has one dimension.
    right = scale_after(lambda norm: [{"params": norm.parameters(), "weight_decay": 0}])
    assert right == 1
    print(f"right: {right:.4f}")
    print("why:   decay is there to keep matrices small. Scales belong near 1, and")
    print("       biases do no harm: p.ndim < 2 tells both from the matrices")


def learning_rate_too_high():
    """Why is my loss nan, and which learning rate is right?"""

    def loss_after(steps, lr):
        w = torch.tensor([1.0, 3.0], requires_grad=True)
        optimizer = SGD([w], lr)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (w**4).sum()
            loss.backward()
            optimizer.step()
        return loss.item()

    # Wrong: steps that lead further and further away. PyTorch says nothing.
    wrong = loss_after(100, lr=1)
    assert math.isnan(wrong)
    print("wrong: loss", wrong)
    # Right: a few steps with each power of ten; take the largest that goes well.
    rates = [lr for lr in (1, 0.1, 0.01, 0.001) if loss_after(10, lr) < 82]
    right = loss_after(100, lr=rates[0])
    assert rates[0] == 0.01 and right < 0.1
    print(f"right: loss {right:.4f} with {rates[0]}")
    print("why:   a step too long ends where the slope is steeper, and so on to nan")


def model_moved_after_step():
    """Why "expected dtype float" from optimizer.step(), after I moved the model?"""
    model = nn.Linear(2, 1)
    optimizer = Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    # Wrong: to() moves the model; what the optimizer remembers stays as it was.
    model.to(torch.float64)
    optimizer.zero_grad()
    model(torch.ones(1, 2).double()).sum().backward()
    try:
        wrong = optimizer.step()
    except RuntimeError as error:
        wrong = str(error)
    assert "expected dtype" in wrong
    print("wrong:", wrong)
    # Right: load_state_dict brings the state to where the parameters are.
    optimizer = Adam(model.parameters())
    optimizer.load_state_dict(state)
    optimizer.step()
    right = optimizer.state[model.weight]["exp_avg"].dtype
    assert right == torch.float64
    print("right:", right, "in model and optimizer")
    print("why:   before the first step there is no state; then a move does no harm")


def generator_used_up():
    """Why "optimizer got an empty parameter list"?"""
    parameters = nn.Linear(4, 2).parameters()
    # Wrong: parameters() is a generator, and counting has used it up.
    count = sum(p.numel() for p in parameters)
    try:
        wrong = SGD(parameters, lr=0.1)
    except ValueError as error:
        wrong = str(error)
    assert "optimizer got an empty parameter list" in wrong
    print("wrong:", wrong)
    # Right: a list; or call parameters() again.
    parameters = list(nn.Linear(4, 2).parameters())
    assert sum(p.numel() for p in parameters) == count == 10
    right = SGD(parameters, lr=0.1)
    assert len(right.param_groups[0]["params"]) == 2
    print("right: 2 parameters in the optimizer")
    print("why:   a generator can be gone through once. A Module without layers, or")
    print("       with layers in a plain list, gives the same message")


def scheduler_before_optimizer():
    """Why "Detected call of `lr_scheduler.step()` before `optimizer.step()`"?"""

    w = torch.zeros(1, requires_grad=True)
    w.grad = -torch.ones(1)
    # Wrong: the scheduler first.
    optimizer = SGD([w], lr=1)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
    with warnings.catch_warnings(record=True, action="always") as caught:
        scheduler.step()
        optimizer.step()
    wrong = w.item()
    assert wrong == 0.5 and "before `optimizer.step()`" in str(caught[0].message)
    print("wrong: a first step of", wrong, "and a warning")
    # Right: the scheduler last, after each step or each epoch as it is meant.
    w.detach().zero_()
    optimizer = SGD([w], lr=1)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    right = w.item()
    assert right == 1
    print("right: of", right)
    print("why:   otherwise the first learning rate is left out")


def step_without_closure():
    """Why "step() missing 1 required positional argument: 'closure'"?"""
    w = torch.tensor(3.0, requires_grad=True)
    optimizer = LBFGS([w], line_search_fn="strong_wolfe")
    # Wrong: called like the other optimizers.
    try:
        wrong = optimizer.step()
    except TypeError as error:
        wrong = str(error)
    assert "missing 1 required positional argument: 'closure'" in wrong
    print("wrong:", wrong)

    # Right: a function that computes the loss and its gradient anew.
    def closure():
        optimizer.zero_grad()
        loss = (w - 5).square()
        loss.backward()
        return loss

    optimizer.step(closure)
    right = w.item()
    assert round(right, 3) == 5
    print(f"right: {right:.3f}")
    print("why:   LBFGS looks at the loss in several places before it takes a step")


def whole_model_saved():
    """Why "Weights only load failed"?"""
    model = nn.Linear(2, 1)
    # Wrong: a whole model is saved as code to run, which load refuses.
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    try:
        wrong = torch.load(file, map_location="cpu")
    except pickle.UnpicklingError as error:
        wrong = str(error).partition(".")[0]
    assert "Weights only load failed" in wrong
    print("wrong:", wrong)
    # Right: save what the model has learned, and make the model anew.
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    right = nn.Linear(2, 1)
    right.load_state_dict(torch.load(file, map_location="cpu"))
    assert right.weight.equal(model.weight)
    print("right: the same weights")
    print("why:   a pickle can contain any program. weights_only=False would run it")


mistakes = {
    name: mistake
    for name, mistake in list(globals().items())
    if isfunction(mistake) and (mistake.__doc__ or "").endswith("?")
}
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("name", nargs="?", metavar="name", choices=mistakes)
parser.add_argument("--list", action="store_true", help="print the names")
args = parser.parse_args()
if not __debug__:
    parser.error("the lessons are made of assertions: run this without -O")
if args.list:
    print(*mistakes, sep="\n")
    parser.exit()

outdated = []
for name in [args.name] if args.name else mistakes:
    print(f"{name}\n{mistakes[name].__doc__}")
    try:
        mistakes[name]()
    except Exception as error:  # noqa: BLE001, as a new version can raise anything
        line = traceback.extract_tb(error.__traceback__)[1].line
        version = f"out of date with torch {torch.__version__}"
        outdated.append(f"{name}: {version}: {error!r} at {line}")
    if not args.name:
        print()
sys.exit("\n".join(outdated) or None)
