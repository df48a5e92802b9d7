"""Make the classic mistakes with autograd, see what happens, and mend them.

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


def gradients_not_cleared():
    """Why does my loss jump up and down, or explode after a good start?"""
    w = torch.tensor(1.0, requires_grad=True)
    # Wrong: backward() adds to w.grad. PyTorch says nothing.
    wrong = []
    for _ in range(3):
        (2 * w).backward()
        wrong.append(w.grad.item())
    assert wrong == [2, 4, 6]
    print("wrong: gradients", wrong, "of the same loss")
    # Right: clear it first; model.zero_grad() and optimizer.zero_grad() do that.
    right = []
    for _ in range(3):
        w.grad = None
        (2 * w).backward()
        right.append(w.grad.item())
    assert right == [2, 2, 2]
    print("right: gradients", right)
    print("why:   each step went along the sum of all gradients so far")


def detached_in_the_middle():
    """Why do my first layers not learn, while the last one does?"""
    w1 = torch.tensor(2.0, requires_grad=True)
    w2 = torch.tensor(3.0, requires_grad=True)
    # Wrong: detach() cuts the graph there, as item(), numpy() and no_grad() do.
    h = (5 * w1).detach()
    (h * w2).backward()
    wrong = w1.grad
    assert wrong is None and w2.grad == 10
    print("wrong: gradients", wrong, "and", w2.grad.item())
    # Right: tensors all the way from the weights to the loss.
    w2.grad = None
    (5 * w1 * w2).backward()
    right = w1.grad
    assert right == 15 and w2.grad == 10
    print("right: gradients", right.item(), "and", w2.grad.item())
    print("why:   backward() goes as far as the record does, and says nothing more")


def changed_behind_data():
    """Why is my gradient wrong, although the forward pass is right?"""
    w = torch.tensor(0.0, requires_grad=True)
    # Wrong: sigmoid keeps its output for the backward pass; .data hides the change.
    y = w.sigmoid()
    y.data.mul_(0)
    y.backward()
    wrong = w.grad
    assert wrong == 0
    print("wrong: gradient", wrong.item(), "and PyTorch says nothing")
    # Right: change a copy.
    w.grad = None
    y = w.sigmoid()
    y.detach().clone().mul_(0)
    y.backward()
    right = w.grad
    assert right == 0.25
    print("right: gradient", right.item())
    print("why:   the derivative is y * (1 - y), and y was gone. Write detach() for")
    print("       .data: it shares memory as well, but backward() notices the change")


def graphs_kept_alive():
    """Why does my program take more memory with every step?"""
    w = torch.ones(10, requires_grad=True)

    def depth(total):
        node, found = getattr(total, "grad_fn", None), 0
        while node is not None:
            node, found = (node.next_functions or [(None, 0)])[0][0], found + 1
        return found

    # Wrong: the sum of the losses is a part of the graph, and keeps all of it.
    total = 0
    for _ in range(100):
        total = total + w.square().sum()
    wrong = depth(total)
    assert wrong > 100
    print("wrong: a graph", wrong, "nodes deep after 100 steps")
    # Right: item() takes the number out.
    total = 0
    for _ in range(100):
        total += w.square().sum().item()
    right = depth(total)
    assert right == 0 and total == 1000
    print("right:", right, "nodes")
    print("why:   a graph lives, with all it saved, as long as a tensor points to it")


def computed_not_a_leaf():
    """Why is the grad of my weight None after backward()?"""
    # Wrong: what is multiplied, or moved by to(), is computed, not a leaf.
    w = 0.1 * torch.ones(3, requires_grad=True)
    w.sum().backward()
    with warnings.catch_warnings(record=True, action="always") as caught:
        grad = w.grad
    wrong = str(caught[0].message).partition(". ")[0]
    assert "a Tensor that is not a leaf Tensor" in wrong and grad is None
    print("wrong: None, and a warning:", wrong)
    # Right: compute first, then ask for gradients.
    w = (0.1 * torch.ones(3)).requires_grad_()
    w.sum().backward()
    right = w.grad
    assert right.tolist() == [1, 1, 1]
    print("right:", right.tolist())
    print("why:   only leaves, which no operation has made, keep their gradient")


def weight_rebound():
    """Why is w.grad None at the second step?"""
    w = torch.tensor(3.0, requires_grad=True)
    w.square().backward()
    # Wrong: this makes another tensor, computed from the old w, and calls it w.
    v = w - 0.1 * w.grad
    v.square().backward()
    with warnings.catch_warnings(record=True, action="always") as caught:
        grad = v.grad
    wrong = str(caught[0].message).partition(". ")[0]
    assert "a Tensor that is not a leaf Tensor" in wrong and grad is None
    print("wrong: None, and a warning:", wrong)
    # Right: change w itself, unrecorded.
    w = torch.tensor(3.0, requires_grad=True)
    w.square().backward()
    with torch.no_grad():
        w -= 0.1 * w.grad
    right = w
    assert right.is_leaf and right.grad == 6
    print(f"right: {right.item():.1f}, and still a leaf")
    print("why:   assignment gives a name to another tensor; -= and sub_ change it")


def grad_before_backward():
    """Why "unsupported operand type(s) for *: 'float' and 'NoneType'"?"""
    w = torch.tensor(3.0, requires_grad=True)
    loss = w.square()
    # Wrong: before the first backward() there is no gradient, not even zero.
    try:
        wrong = w - 0.1 * w.grad
    except TypeError as error:
        wrong = str(error)
    assert "unsupported operand type(s) for *: 'float' and 'NoneType'" in wrong
    print("wrong:", wrong)
    # Right: backward() first.
    loss.backward()
    right = w - 0.1 * w.grad
    assert round(right.item(), 4) == 2.4
    print(f"right: {right.item():.1f}")
    print("why:   grad is None until backward(), and again after zero_grad(). If it")
    print("       is None after backward(), the loss does not depend on w")


def leaf_changed_inplace():
    """Why "a leaf Variable that requires grad is being used in an in-place..."?"""
    w = torch.tensor(3.0, requires_grad=True)
    w.square().backward()
    # Wrong: the update would be recorded, as if it belonged to the network.
    try:
        w -= 0.1 * w.grad
        wrong = w
    except RuntimeError as error:
        wrong = str(error)
    assert "a leaf Variable that requires grad" in wrong
    print("wrong:", wrong)
    # Right: nothing is recorded under no_grad().
    with torch.no_grad():
        w -= 0.1 * w.grad
    right = w
    assert round(right.item(), 4) == 2.4
    print(f"right: {right.item():.1f}")
    print("why:   a leaf is where the record begins, so nothing may happen before it")


def saved_tensor_changed():
    """Why "modified by an inplace operation"?"""
    w = torch.tensor([1.0, -1.0], requires_grad=True)
    # Wrong: sigmoid saves its output, and += changes it.
    try:
        y = w.sigmoid()
        y += 1
        wrong = y.sum().backward()
    except RuntimeError as error:
        wrong = str(error).partition(":")[0]
    assert "modified by an inplace operation" in wrong
    print("wrong:", wrong)
    # Right: y + 1 is another tensor.
    y = w.sigmoid()
    y = y + 1
    y.sum().backward()
    right = w.grad
    assert right.allclose(w.sigmoid() * (1 - w.sigmoid()))
    print(f"right: gradient {right[0]:.4f}, {right[1]:.4f}")
    print("why:   the backward pass needs what was there. The same holds for x[0] = 0")
    print("       and ReLU(inplace=True), where the layer before needs its output")


def backward_called_twice():
    """Why "Trying to backward through the graph a second time"?"""
    w = torch.tensor(3.0, requires_grad=True)
    # Wrong: h belongs to both losses, and the first backward() takes it apart.
    h = w.square()
    try:
        (2 * h).backward()
        wrong = (5 * h).backward()
    except RuntimeError as error:
        wrong = str(error).partition(" (")[0]
    assert "Trying to backward through the graph a second time" in wrong
    print("wrong:", wrong)
    # Right: one backward() for the sum.
    w.grad = None
    h = w.square()
    (2 * h + 5 * h).backward()
    right = w.grad
    assert right == 7 * 2 * 3
    print("right: gradient", right.item())
    print("why:   what was saved is freed on the way, unless retain_graph=True. In a")
    print("       loop, a tensor of the step before is at fault: detach() that one")


def loss_not_scalar():
    """Why "grad can be implicitly created only for scalar outputs"?"""
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    # Wrong: two losses, and one number has to be made small.
    try:
        wrong = w.square().backward()
    except RuntimeError as error:
        wrong = str(error)
    assert "grad can be implicitly created only for scalar outputs" in wrong
    print("wrong:", wrong)
    # Right: their sum, or their mean.
    w.square().sum().backward()
    right = w.grad
    assert right.tolist() == [2, 4]
    print("right: gradient", right.tolist())
    print("why:   a gradient says how fast one number grows, so there must be one")


def nothing_requires_grad():
    """Why "element 0 of tensors does not require grad and does not have a grad_fn"?"""
    w = torch.tensor(3.0, requires_grad=True)
    # Wrong: computed under no_grad(), or from tensors none of which requires a grad.
    try:
        with torch.no_grad():
            loss = w.square()
        wrong = loss.backward()
    except RuntimeError as error:
        wrong = str(error)
    assert "does not require grad and does not have a grad_fn" in wrong
    print("wrong:", wrong)
    # Right: no_grad() only around what is not to be learned from.
    w.square().backward()
    right = w.grad
    assert right == 6
    print("right: gradient", right.item())
    print("why:   nothing was recorded. argmax and torch.tensor(x) end a record, too")


def integers_require_grad():
    """Why "Only Tensors of floating point and complex dtype can require gradients"?"""
    # Wrong: without a decimal point these are integers.
    try:
        wrong = torch.tensor([1, 2], requires_grad=True)
    except RuntimeError as error:
        wrong = str(error)
    assert "Only Tensors of floating point" in wrong
    print("wrong:", wrong)
    # Right: floats.
    right = torch.tensor([1.0, 2.0], requires_grad=True)
    assert right.requires_grad
    print("right:", right.dtype)
    print("why:   a derivative asks what a small change does; integers have none")


def numpy_of_tracked():
    """Why "Can't call numpy() on Tensor that requires grad"?"""
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    # Wrong: the product is a part of the graph.
    try:
        wrong = (w * w).numpy()
    except RuntimeError as error:
        wrong = str(error)
    assert "Can't call numpy() on Tensor that requires grad" in wrong
    print("wrong:", wrong)
    # Right: say that it may; numpy(force=True) does so, and copies from a GPU.
    right = (w * w).detach().numpy()
    assert right.tolist() == [1, 4]
    print("right:", right.tolist())
    print("why:   what happens in NumPy is not recorded, and a gradient could get lost")


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
