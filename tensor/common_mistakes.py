"""Make the classic mistakes with tensors, see what happens, and mend them.

Each function is a mistake, and its docstring is the question that it leads to. The
first ones are those of which PyTorch says nothing. What is claimed is asserted, so with
another version of PyTorch this script says which lessons are out of date.
"""

import argparse
import sys
import traceback
from inspect import isfunction

import numpy as np
import torch


def column_minus_row():
    """Why does my loss stop falling, although the predictions could be perfect?"""
    y = torch.arange(4.0)  # (4,)
    y_pred = y[:, None]  # perfect predictions, (4, 1), as nn.Linear returns them
    # Wrong: (4, 1) - (4,) is broadcast to (4, 4). PyTorch says nothing.
    wrong = (y_pred - y).square().mean()
    assert wrong == 2.5
    print(f"wrong: loss {wrong:.4f} of perfect predictions")
    # Right: the same shape on both sides.
    right = (y_pred - y[:, None]).square().mean()
    assert right == 0
    print(f"right: loss {right:.4f}")
    print("why:   every prediction was compared with every target")


def argmax_over_batch():
    """Why is my accuracy no better than chance, although the loss is small?"""
    labels = torch.tensor([2, 0, 1])
    scores = torch.eye(3)[labels]  # (N, classes), the highest one where it should be
    # Wrong: dimension 0 is the batch. PyTorch says nothing if it fits the classes.
    wrong = (scores.argmax(0) == labels).float().mean()
    assert wrong == 0
    print(f"wrong: accuracy {wrong:.2f}")
    # Right: the highest score in each row.
    right = (scores.argmax(1) == labels).float().mean()
    assert right == 1
    print(f"right: accuracy {right:.2f}")
    print("why:   argmax(0) looks for the best image of each class; argmax(1), or")
    print("       argmax(-1), looks for the best class of each image")


def accuracy_floored():
    """Why is my accuracy always 0?"""
    hits = torch.tensor([True, True, True, False])
    # Wrong: // rounds down, in tensors of integers as in Python.
    wrong = hits.sum() // len(hits)
    assert wrong == 0
    print(f"wrong: accuracy {wrong.item()}")
    # Right: / makes floats of integers.
    right = hits.sum() / len(hits)
    assert right == 0.75
    print(f"right: accuracy {right.item()}")
    print("why:   3 // 4 is 0. Negative numbers go down, too: -7 // 2 is -4, and")
    print("       torch.div(a, b, rounding_mode='trunc') cuts off as C does")


def fraction_cut_off():
    """Why are the numbers that I put into my tensor cut off?"""
    # Wrong: a tensor made of integers holds integers. PyTorch says nothing.
    wrong = torch.tensor([1, 2, 3])
    wrong[0] = 0.9
    assert wrong.tolist() == [0, 2, 3]
    print("wrong:", wrong.tolist())
    # Right: one point makes them all floats, or dtype=torch.float32.
    right = torch.tensor([1.0, 2, 3])
    right[0] = 0.9
    assert right.tolist() != [0, 2, 3] and right[0] == 0.9
    print(f"right: [{right[0]:.1f}, {right[1]:.1f}, {right[2]:.1f}]")
    print("why:   an assignment converts to the dtype of the tensor assigned to")


def bytes_wrap_around():
    """Why does my image get dark spots when I make it brighter?"""
    pixels = torch.tensor([100, 200], dtype=torch.uint8)
    # Wrong: bytes end at 255 and begin again at 0. PyTorch says nothing.
    wrong = pixels + 100
    assert wrong.tolist() == [200, 44]
    print("wrong:", wrong.tolist())
    # Right: floats, cut off at the end of the range.
    right = (pixels.float() + 100).clamp(max=255)
    assert right.tolist() == [200, 255]
    print("right:", right.tolist())
    print("why:   200 + 100 - 256 is 44; differences below 0 wrap around as well")


def view_shares_memory():
    """Why did my data change, when I only changed a part that I took out of it?"""
    # Wrong: an index or a slice is a view of the same memory. PyTorch says nothing.
    wrong = torch.zeros(2, 2)
    row = wrong[0]
    row += 1
    assert wrong.tolist() == [[1, 1], [0, 0]]
    print("wrong:", wrong.tolist(), "where all were 0")
    # Right: clone() has memory of its own.
    right = torch.zeros(2, 2)
    row = right[0].clone()
    row += 1
    assert right.tolist() == [[0, 0], [0, 0]]
    print("right:", right.tolist())
    print("why:   views cost nothing; += works in place, row = row + 1 does not")


def array_edited_behind():
    """Why does my tensor change when I reuse the NumPy array that it came from?"""
    # Wrong: from_numpy shares its memory, as as_tensor and numpy() do. It says nothing.
    array = np.ones(3)
    wrong = torch.from_numpy(array)
    array *= 5
    assert wrong.tolist() == [5, 5, 5]
    print("wrong:", wrong.tolist(), "although it was made when all were 1")
    # Right: torch.tensor always copies.
    array = np.ones(3)
    right = torch.tensor(array)
    array *= 5
    assert right.tolist() == [1, 1, 1]
    print("right:", right.tolist())
    print("why:   sharing saves a copy, and is right if the array is not used again")


def expanded_rows_linked():
    """Why do all rows change when I set one of them?"""
    # Wrong: expand makes no copies, so both rows are one. PyTorch says nothing.
    wrong = torch.zeros(1, 3).expand(2, 3)
    wrong[0] += 1
    assert wrong.tolist() == [[1, 1, 1], [1, 1, 1]]
    print("wrong:", wrong.tolist(), "after a change of row 0")
    # Right: repeat copies, as clone() after expand does.
    right = torch.zeros(1, 3).repeat(2, 1)
    right[0] += 1
    assert right.tolist() == [[1, 1, 1], [0, 0, 0]]
    print("right:", right.tolist())
    print("why:   an expanded tensor is for reading; its stride there is 0")


def reshaped_not_transposed():
    """Why does the network not learn from my data after I changed its shape?"""
    x = torch.tensor([[1, 2, 3], [10, 20, 30]])  # 2 samples of 3 numbers
    # Wrong: reshape keeps the order in memory. The shape is right, nothing else is.
    wrong = x.reshape(3, 2)
    assert wrong.tolist() == [[1, 2], [3, 10], [20, 30]]
    print("wrong:", wrong.tolist())
    # Right: .T swaps two dimensions, .mT the last two, permute any.
    right = x.T
    assert right.tolist() == [[1, 10], [2, 20], [3, 30]]
    print("right:", right.tolist())
    print("why:   reshape and view cut the numbers into rows anew, samples mixed")


def floats_compared_exactly():
    """Why is 10 times 0.1 not equal to 1?"""
    total = torch.full((10,), 0.1).sum()
    # Wrong: == asks for the same bits, and 0.1 has none that are exact.
    wrong = bool(total == 1)
    assert wrong is False
    print(f"wrong: {total.item():.10f} == 1 is {wrong}")
    # Right: equal up to rounding. In tests: torch.testing.assert_close.
    right = torch.isclose(total, torch.tensor(1.0)).item()
    assert right is True
    print(f"right: isclose says {right}")
    print("why:   float32 keeps 7 digits, and each sum is rounded, in an order that")
    print("       depends on the device and on the number of threads")


def result_thrown_away():
    """Why does x.to(...) not do anything?"""
    x = torch.ones(2)
    # Wrong: to returns another tensor and leaves x alone. PyTorch says nothing.
    x.to(torch.float64)
    wrong = x.dtype
    assert wrong == torch.float32
    print("wrong:", wrong)
    # Right: keep the result. The same goes for x.to("cuda") and x.add(1).
    x = x.to(torch.float64)
    right = x.dtype
    assert right == torch.float64
    print("right:", right)
    print("why:   what works in place ends in _, as add_. But model.to(...) of a")
    print("       Module does change the model itself")


def capital_letter_tensor():
    """Why does torch.Tensor(3) contain strange numbers?"""
    # Wrong: Tensor(3) asks for 3 numbers, whatever is in the memory. It says nothing.
    wrong = torch.Tensor(3)
    assert wrong.shape == (3,)
    print("wrong:", "shape", tuple(wrong.shape))
    # Right: the function tensor takes the values, and their dtype.
    right = torch.tensor(3)
    assert right.shape == () and right.item() == 3
    print("right:", "shape", tuple(right.shape), "value", right.item())
    print("why:   torch.Tensor is the class; torch.empty(3) says what you get")


def expanded_changed_inplace():
    """Why "more than one element of the written-to tensor"?"""
    # Wrong: changing in place what expand has made.
    try:
        wrong = torch.zeros(1, 3).expand(2, 3).add_(1)
    except RuntimeError as error:
        wrong = str(error)
    assert "more than one element of the written-to tensor" in wrong
    print("wrong:", wrong)
    # Right: a copy first, or no change in place.
    right = torch.zeros(1, 3).expand(2, 3).clone().add_(1)
    assert right.tolist() == [[1, 1, 1], [1, 1, 1]]
    print("right:", right.tolist())
    print("why:   both rows are the same memory: would 1 be added once or twice?")


def float64_from_numpy():
    """Why "must have the same dtype, but got Double and Float"?"""
    array = np.ones((2, 3))  # NumPy's floats are float64
    linear = torch.nn.Linear(3, 1)  # PyTorch's are float32
    # Wrong: the tensor keeps the dtype of the array.
    try:
        wrong = linear(torch.from_numpy(array))
    except RuntimeError as error:
        wrong = str(error)
    assert "must have the same dtype, but got Double and Float" in wrong
    print("wrong:", wrong)
    # Right: convert the data once. float64 takes twice the memory.
    right = linear(torch.from_numpy(array).float())
    assert right.dtype == torch.float32
    print("right:", right.dtype)
    print("why:   + and * turn float32 into float64 and say nothing; @ refuses")


def mean_of_integers():
    """Why "mean(): could not infer output dtype"?"""
    hits = torch.tensor([True, True, True, False])
    # Wrong: a mean of booleans or integers.
    try:
        wrong = hits.mean()
    except RuntimeError as error:
        wrong = str(error)
    assert "mean(): could not infer output dtype" in wrong
    print("wrong:", wrong)
    # Right: floats first.
    right = hits.float().mean()
    assert right == 0.75
    print("right:", right.item())
    print("why:   the mean has the dtype of the tensor, and 0.75 is no integer")


def division_in_place():
    """Why "result type Float can't be cast to the desired output type Long"?"""
    counts = torch.tensor([7, 8])
    # Wrong: /= has to put floats into integers.
    try:
        counts /= 2
        wrong = counts
    except RuntimeError as error:
        wrong = str(error)
    assert "can't be cast to the desired output type Long" in wrong
    print("wrong:", wrong)
    # Right: a new tensor, which is one of floats; or counts //= 2.
    right = counts / 2
    assert right.tolist() == [3.5, 4]
    print("right:", right.tolist())
    print("why:   in place means that the memory and its dtype stay")


def array_plus_tensor():
    """Why "Concatenation operation is not implemented for NumPy arrays"?"""
    array, x = np.ones(2, np.float32), torch.ones(2)
    # Wrong: NumPy comes first here, and does not know what to do with a tensor.
    try:
        wrong = array + x
    except TypeError as error:
        wrong = str(error)
    assert "not implemented for NumPy arrays" in wrong
    print("wrong:", wrong)
    # Right: both of one kind.
    right = torch.from_numpy(array) + x
    assert right.tolist() == [2, 2]
    print("right:", right.tolist())
    print("why:   neither library converts what belongs to the other")


def devices_mixed():
    """Why "on the expected device", or "on the same device"?"""
    # Without a GPU, meta stands in for one: a device of shapes, without numbers.
    found = "meta"
    if torch.accelerator.is_available():
        found = torch.accelerator.current_accelerator()
    x, w = torch.ones(3), torch.ones(3, device=found)
    # Wrong: x is still on the CPU.
    try:
        wrong = x + w
    except RuntimeError as error:
        wrong = str(error)
    assert "on the expected device" in wrong or "on the same device" in wrong
    print("wrong:", wrong)
    # Right: move it to where the other one is.
    right = x.to(w.device) + w
    assert right.device == w.device
    print(f"right: on {right.device.type}")
    print("why:   moving is slow, so PyTorch never does it unasked")


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
