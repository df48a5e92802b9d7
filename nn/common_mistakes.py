"""Make the classic mistakes with layers and losses, see what happens, and mend them.

Each function is a mistake, and its docstring is the question that it leads to. The
first ones are those of which PyTorch says nothing. What is claimed is asserted, so with
another version of PyTorch this script says which lessons are out of date.
"""

import argparse
import sys
import traceback
import warnings
from inspect import isfunction

import torch
from torch import nn


def softmax_before_loss():
    """Why does my loss stay above 1.46, although the accuracy is good?"""
    labels = torch.arange(10)
    scores = 100 * nn.functional.one_hot(labels).float()  # right, and very sure
    loss_fn = nn.CrossEntropyLoss()
    # Wrong: the loss takes the softmax itself. PyTorch says nothing.
    wrong = loss_fn(scores.softmax(1), labels).item()
    assert round(wrong, 4) == 1.4612
    print(f"wrong: loss {wrong:.4f} of answers that could not be better")
    # Right: scores as they come from the last layer.
    right = loss_fn(scores, labels).item()
    assert right == 0
    print(f"right: loss {right:.4f}")
    print("why:   a softmax of numbers from 0 to 1 is never sure: with 10 classes, at")
    print("       best e / (e + 9). Nor put a sigmoid before BCEWithLogitsLoss")


def relu_on_logits():
    """Why does my loss stay at 2.3026?"""
    labels = torch.arange(10)
    scores = torch.full((10, 10), -1.0, requires_grad=True)
    loss_fn = nn.CrossEntropyLoss()
    # Wrong: a ReLU after the last layer stops scores below 0, and their gradients.
    loss = loss_fn(scores.relu(), labels)
    wrong = torch.autograd.grad(loss, scores)[0].abs().sum().item()
    assert wrong == 0 and round(loss.item(), 4) == 2.3026
    print(f"wrong: loss {loss.item():.4f}, all gradients {wrong}")
    # Right: the last layer is linear.
    loss = loss_fn(scores, labels)
    right = torch.autograd.grad(loss, scores)[0].abs().sum().item()
    assert right > 1
    print(f"right: loss {loss.item():.4f}, gradients of {right:.1f} in all")
    print("why:   2.3026 is ln 10, the loss of a guess among 10 classes")


def layers_in_a_list():
    """Why do some of my layers not learn?"""

    class Stack(nn.Module):
        """Three layers, kept in the given kind of list."""

        def __init__(self, kind):
            super().__init__()
            self.layers = kind(nn.Linear(2, 2) for _ in range(3))

    # Wrong: in a plain list a Module does not find them. PyTorch says nothing.
    wrong = len(list(Stack(list).parameters()))
    assert wrong == 0
    print("wrong:", wrong, "parameters")
    # Right: ModuleList registers them; ModuleDict and ParameterList do the same.
    right = len(list(Stack(nn.ModuleList).parameters()))
    assert right == 6
    print("right:", right, "parameters, a weight and a bias for each layer")
    print("why:   not found, not trained, not moved by to(), not in the state_dict")


def eval_forgotten():
    """Why do I get another answer each time that I ask my trained network?"""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 10), nn.Dropout(0.5))
    x = torch.ones(1, 10)
    # Wrong: dropout goes on, and batch norm depends on the batch. It says nothing.
    with torch.no_grad():
        wrong = (model(x) - model(x)).abs().max().item()
    assert wrong > 0.1
    print(f"wrong: two answers differ by {wrong:.4f}")
    # Right: eval() before testing, train() before going on.
    model.eval()
    with torch.no_grad():
        right = (model(x) - model(x)).abs().max().item()
    assert right == 0
    print(f"right: by {right:.4f}")
    print("why:   no_grad() turns off the record, eval() the behaviour of training")


def forward_called_directly():
    """Why is my hook never called?"""
    linear, calls = nn.Linear(2, 2), []
    linear.register_forward_hook(lambda *_: calls.append("hook"))
    x = torch.ones(1, 2)
    # Wrong: forward is only a part of a call. PyTorch says nothing.
    linear.forward(x)
    wrong = len(calls)
    assert wrong == 0
    print("wrong:", wrong, "calls")
    # Right: call the module.
    linear(x)
    right = len(calls)
    assert right == 1
    print("right:", right, "call")
    print("why:   a call runs the hooks around forward, with which other tools look in")


def weights_all_alike():
    """Why do all my hidden units learn the same?"""
    x, y = torch.linspace(-1, 1, 8)[:, None], torch.ones(8, 1)

    def different_gradients(init):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))
        for layer in (model[0], model[2]):
            init(layer.weight)
            nn.init.zeros_(layer.bias)
        (model(x) - y - x).square().mean().backward()
        return len(model[0].weight.grad.unique())

    # Wrong: the same number for all, such as 0. PyTorch says nothing.
    wrong = different_gradients(nn.init.ones_)
    assert wrong == 1
    print("wrong:", wrong, "gradient for all 5 hidden units")
    # Right: random weights, which is what a layer has by itself.
    right = different_gradients(nn.init.xavier_normal_)
    assert right == 5
    print("right:", right, "different ones")
    print("why:   units that start alike and get the same gradients stay alike")


def weights_too_large():
    """Why is my loss huge, and nan a few steps later?"""
    torch.manual_seed(0)
    x, y = torch.randn(64, 1000), torch.randn(64, 10)

    def loss_after(scale1, scale2):
        w1, w2 = scale1 * torch.randn(1000, 100), scale2 * torch.randn(100, 10)
        for _ in range(20):
            w1.requires_grad_().grad = w2.requires_grad_().grad = None
            loss = ((x @ w1).relu() @ w2 - y).square().sum()
            loss.backward()
            w1, w2 = w1.detach() - 1e-4 * w1.grad, w2.detach() - 1e-4 * w2.grad
        return loss.item()

    # Wrong: standard normal weights, with the learning rate of others. It says nothing.
    wrong = loss_after(1, 1)
    assert not wrong < 1e30
    print("wrong: loss", wrong)
    # Right: weights of the order of 1 / sqrt(inputs), as nn.Linear has.
    right = loss_after(1000**-0.5, 100**-0.5)
    assert right < 640
    print(f"right: loss {right:.0f}")
    print("why:   gradients grow with the weights. Or take a smaller step: 1e-6 here")


def mean_for_sum():
    """Why does my loss fall so slowly with nn.MSELoss?"""
    y = torch.ones(64, 10)
    y_pred = torch.zeros(64, 10, requires_grad=True)
    # Wrong: a learning rate that was found for a sum. PyTorch says nothing.
    loss = nn.MSELoss()(y_pred, y)
    wrong = torch.autograd.grad(loss, y_pred)[0][0, 0].item()
    assert round(wrong, 6) == -0.003125
    print(f"wrong: gradients of {wrong:.6f}")
    # Right: the sum; or 640 times the learning rate.
    loss = nn.MSELoss(reduction="sum")(y_pred, y)
    right = torch.autograd.grad(loss, y_pred)[0][0, 0].item()
    assert right == -2
    print(f"right: {right:.6f}, which is 640 times as much")
    print("why:   the default is the mean of all numbers: 64 samples times 10 outputs")


def loss_broadcasts():
    """Why "Using a target size ... that is different to the input size"?"""
    y = torch.arange(4.0)  # (4,)
    y_pred = y[:, None]  # perfect predictions, (4, 1)
    # Wrong: (4, 1) and (4,) are broadcast to (4, 4). It works, and warns.
    with warnings.catch_warnings(record=True, action="always") as caught:
        loss = nn.MSELoss()(y_pred, y)
    wrong = str(caught[0].message).partition(". ")[0]
    assert "that is different to the input size" in wrong and loss == 2.5
    print("wrong:", wrong)
    # Right: equal shapes.
    right = nn.MSELoss()(y_pred, y[:, None])
    assert right == 0
    print(f"right: loss {right:.4f}")
    print("why:   every prediction was compared with every target")


def one_in_the_batch():
    """Why "Expected more than 1 value per channel when training"?"""
    norm, x = nn.BatchNorm1d(4), torch.ones(1, 4)
    # Wrong: a batch of one while training, often the last, smaller batch.
    try:
        wrong = norm(x)
    except ValueError as error:
        wrong = str(error)
    assert "Expected more than 1 value per channel when training" in wrong
    print("wrong:", wrong)
    # Right: eval() to predict; drop_last=True in the DataLoader to train.
    right = norm.eval()(x)
    assert right.shape == (1, 4)
    print("right:", tuple(right.shape))
    print("why:   one value has no variance. GroupNorm and LayerNorm need no batch")


def init_not_called():
    """Why "cannot assign module before Module.__init__() call"?"""

    class Net(nn.Module):
        """A layer, made after super().__init__() only if told so."""

        def __init__(self, call):
            if call:
                super().__init__()
            self.linear = nn.Linear(2, 2)

    # Wrong: no super().__init__().
    try:
        wrong = Net(call=False)
    except AttributeError as error:
        wrong = str(error)
    assert "cannot assign module before Module.__init__() call" in wrong
    print("wrong:", wrong)
    # Right: before everything else.
    right = Net(call=True)
    assert len(list(right.parameters())) == 2
    print("right: 2 parameters; __init__ makes the lists in which they are kept")
    print("why:   assigning to self.linear registers it, and needs these lists")


def input_not_flattened():
    """Why "mat1 and mat2 shapes cannot be multiplied"?"""
    images, linear = torch.ones(4, 1, 28, 28), nn.Linear(28 * 28, 10)
    # Wrong: Linear takes the last dimension, which is 28.
    try:
        wrong = linear(images)
    except RuntimeError as error:
        wrong = str(error)
    assert "mat1 and mat2 shapes cannot be multiplied" in wrong
    print("wrong:", wrong)
    # Right: nn.Flatten() or flatten(1) makes one dimension of all but the first.
    right = linear(images.flatten(1))
    assert right.shape == (4, 10)
    print("right:", tuple(right.shape))
    print("why:   mat1 is the input, one row for each vector, and mat2 the weight")


def targets_of_wrong_kind():
    """Why "expected target dtype to be Long or Byte, but got Float"?"""
    scores, labels = torch.zeros(3, 4), torch.tensor([0.0, 1.0, 3.0])
    loss_fn = nn.CrossEntropyLoss()
    # Wrong: classes as floats.
    try:
        wrong = loss_fn(scores, labels)
    except RuntimeError as error:
        wrong = str(error)
    assert "expected target dtype to be Long or Byte, but got Float" in wrong
    print("wrong:", wrong)
    # Right: the numbers of the classes are integers, in a tensor (N,).
    right = loss_fn(scores, labels.long())
    assert round(right.item(), 4) == 1.3863
    print(f"right: loss {right.item():.4f}, which is ln 4")
    print("why:   floats (N, classes) would be probabilities; BCEWithLogitsLoss and")
    print("       MSELoss want floats of the shape of the predictions")


def label_out_of_range():
    """Why "Target 4 is out of bounds", or on a GPU "device-side assert triggered"?"""
    scores, labels = torch.zeros(3, 4), torch.tensor([1, 2, 4])
    loss_fn = nn.CrossEntropyLoss()
    # Wrong: 4 classes are 0, 1, 2 and 3.
    try:
        wrong = loss_fn(scores, labels)
    except IndexError as error:
        wrong = str(error)
    assert "is out of bounds" in wrong
    print("wrong:", wrong)
    # Right: count from 0.
    right = loss_fn(scores, labels - 1)
    assert round(right.item(), 4) == 1.3863
    print(f"right: loss {right.item():.4f}, which is ln 4")
    print("why:   a label is the index of a score. On a GPU the message comes late and")
    print("       names another line: run the program on the CPU to find the right one")


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
