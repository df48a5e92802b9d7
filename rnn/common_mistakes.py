"""Make the classic mistakes with sequences, see what happens, and mend them.

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
from torch.nn.utils import rnn


def batch_not_first():
    """Why does my RNN not learn, although all shapes are right?"""
    torch.manual_seed(0)
    x = torch.randn(4, 10, 2)  # (N, T, D_in)
    other = x.clone()
    other[0] = 0  # another first sequence; the last one is the same
    # Wrong: by default the first dimension is time. PyTorch says nothing.
    gru = nn.GRU(2, 8)
    wrong = (gru(x)[0] - gru(other)[0])[3].abs().max().item()
    assert wrong > 0.001
    print(f"wrong: sequence 0 changes what comes out for sequence 3 by {wrong:.4f}")
    # Right: batch_first=True, or x.transpose(0, 1).
    gru = nn.GRU(2, 8, batch_first=True)
    right = (gru(x)[0] - gru(other)[0])[3].abs().max().item()
    assert right == 0
    print(f"right: by {right:.4f}")
    print("why:   the sequences of the batch were read as one time step after another")


def states_of_others():
    """Why does my classifier mix up the samples of a batch?"""
    torch.manual_seed(0)
    gru = nn.GRU(2, 8, batch_first=True, bidirectional=True)
    x = torch.randn(4, 10, 2)
    h_n = gru(x)[1]  # (2, N, H), never batch first
    alone = gru(x[:1])[1].flatten()  # (2 * H,) what sequence 0 gets by itself
    # Wrong: reshape puts the states of two sequences into one row. It says nothing.
    wrong = (h_n.reshape(4, 16)[0] - alone).abs().max().item()
    assert wrong > 0.001
    print(f"wrong: sequence 0 is off by {wrong:.4f}")
    # Right: the batch first, then both directions in one row.
    right = (h_n.transpose(0, 1).reshape(4, 16)[0] - alone).abs().max().item()
    assert right < 1e-6
    print("right: it is what the sequence gets alone")
    print("why:   h_n is (layers * directions, N, H), whatever batch_first says")


def backward_read_at_end():
    """Why does the backward direction of my RNN not help?"""
    torch.manual_seed(0)
    gru = nn.GRU(2, 8, batch_first=True, bidirectional=True)
    x = torch.randn(1, 10, 2)
    other = x.clone()
    other[:, 0] = 0  # another beginning
    # Wrong: at the last step the backward half has read one step. It says nothing.
    wrong = (gru(x)[0] - gru(other)[0])[0, -1, 8:].abs().max().item()
    assert wrong == 0
    print(f"wrong: the first step changes it by {wrong:.4f}")
    # Right: its last state, h_n[-1], which is the backward half at step 0.
    right = (gru(x)[1] - gru(other)[1])[-1].abs().max().item()
    assert right > 0.001
    print(f"right: by {right:.4f}")
    print("why:   this direction begins at the end and ends at the beginning")


def padding_read_as_end():
    """Why are my short sequences classified badly?"""
    torch.manual_seed(0)
    gru = nn.GRU(2, 8, batch_first=True)
    sequences = [torch.randn(2, 2), torch.randn(10, 2)]
    alone = gru(sequences[0])[1][0]
    # Wrong: the last output comes after 8 steps of padding. PyTorch says nothing.
    output, _ = gru(rnn.pad_sequence(sequences, batch_first=True))
    wrong = (output[0, -1] - alone).abs().max().item()
    assert wrong > 0.01
    print(f"wrong: off by {wrong:.4f} from the same sequence alone")
    # Right: the output at length - 1; for both directions, pack the sequences.
    right = (output[0, len(sequences[0]) - 1] - alone).abs().max().item()
    assert right < 1e-6
    print("right: the same as alone")
    print("why:   the network does not know that zeros mean nothing")


def loss_over_padding():
    """Why is my loss so small, although the predictions are bad?"""
    scores = torch.zeros(2, 10, 5)  # (N, T, classes), bad guesses all
    scores[0, 2:, 0] = 100  # but sure of class 0 in the padding
    y = torch.ones(2, 10, dtype=torch.long)
    y[0, 2:] = 0  # the first sequence has 2 steps, and 8 of padding
    # Wrong: the mean over everything. PyTorch says nothing.
    wrong = nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten()).item()
    assert round(wrong, 4) == 0.9657
    print(f"wrong: loss {wrong:.4f}")
    # Right: targets of padding are -100, which the loss leaves out; or use a mask.
    y[0, 2:] = -100
    right = nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten()).item()
    assert round(right, 4) == 1.6094
    print(f"right: loss {right:.4f}, which is ln 5, a guess")
    print("why:   padding is easy to predict, and here it is 8 steps of 20")


def state_of_another_text():
    """Why does the same input give another answer each time?"""
    torch.manual_seed(0)
    gru = nn.GRU(2, 8)
    one, other = torch.randn(10, 1, 2), torch.randn(10, 1, 2)
    alone = gru(one)[0]
    # Wrong: the state that another sequence has left behind. PyTorch says nothing.
    _, state = gru(other)
    wrong = (gru(one, state)[0] - alone).abs().max().item()
    assert wrong > 0.01
    print(f"wrong: off by {wrong:.4f}")
    # Right: begin with zeros, which is the default.
    right = (gru(one)[0] - alone).abs().max().item()
    assert right == 0
    print(f"right: off by {right:.4f}")
    print("why:   keep the state only if the next piece goes on where this one ended")


def dropout_of_one_layer():
    """Why "dropout option adds dropout after all but last recurrent layer"?"""
    torch.manual_seed(0)
    # Wrong: with one layer there is no place for dropout. It warns, and does nothing.
    with warnings.catch_warnings(record=True, action="always") as caught:
        gru = nn.GRU(2, 8, dropout=0.5)
    wrong = (gru(torch.ones(3, 1, 2))[0] == 0).float().mean().item()
    said = str(caught[0].message)
    assert wrong == 0
    assert said.startswith("dropout option adds dropout after all but last recurrent")
    print(f"wrong: {wrong:.0%} of the outputs are dropped")
    # Right: a Dropout behind it.
    output = nn.Dropout(0.5)(nn.GRU(2, 8)(torch.ones(3, 1, 2))[0])
    right = (output == 0).float().mean().item()
    assert 0.2 < right < 0.8
    print(f"right: {right:.0%}")
    print("why:   the option is for what goes from one layer to the next")


def state_not_detached():
    """Why "backward through the graph a second time" with my RNN?"""
    gru, x = nn.GRU(2, 8), torch.ones(5, 1, 2)
    # Wrong: the state leads back into the graph of the piece before.
    try:
        output, state = gru(x)
        output.sum().backward()
        output, state = gru(x, state)
        wrong = output.sum().backward()
    except RuntimeError as error:
        wrong = str(error).partition(" (")[0]
    assert "Trying to backward through the graph a second time" in wrong
    print("wrong:", wrong)
    # Right: take the numbers along, not the graph.
    output, state = gru(x)
    output, state = gru(x, state.detach())
    right = output.sum().backward()
    assert right is None and state.requires_grad
    print("right: no complaint")
    print("why:   the state was computed, too. An LSTM has two: h and c")


def lengths_not_sorted():
    """Why "`lengths` array must be sorted in decreasing order"?"""
    sequences = [torch.ones(1, 2), torch.ones(3, 2)]
    # Wrong: the longest sequence does not come first.
    try:
        wrong = rnn.pack_sequence(sequences)
    except RuntimeError as error:
        wrong = str(error).partition(" when")[0]
    assert "must be sorted in decreasing order" in wrong
    print("wrong:", wrong)
    # Right: PyTorch sorts them, and puts the results back into the old order.
    right = rnn.pack_sequence(sequences, enforce_sorted=False)
    assert [len(s) for s in rnn.unpack_sequence(right)] == [1, 3]
    print("right: batches of", right.batch_sizes.tolist())
    print("why:   step by step fewer sequences are left, the first ones of the batch")


def state_batch_first():
    """Why "Expected hidden size (1, 4, 8), got [4, 1, 8]"?"""
    gru, x = nn.GRU(2, 8, batch_first=True), torch.ones(4, 10, 2)
    # Wrong: batch_first is for input and output, not for the state.
    try:
        wrong = gru(x, torch.zeros(4, 1, 8))
    except RuntimeError as error:
        wrong = str(error)
    assert "Expected hidden size (1, 4, 8), got [4, 1, 8]" in wrong
    print("wrong:", wrong)
    # Right: (layers * directions, N, H). Zeros can be left out.
    right = gru(x, torch.zeros(1, 4, 8))[1]
    assert right.shape == (1, 4, 8)
    print("right:", tuple(right.shape))
    print("why:   each layer and each direction has a state of its own, (N, H)")


def tuple_handed_on():
    """Why "linear(): argument 'input' (position 1) must be Tensor, not tuple"?"""
    gru, linear, x = nn.GRU(2, 8), nn.Linear(8, 1), torch.ones(5, 1, 2)
    # Wrong: an RNN returns its outputs and its last state; so not in a Sequential.
    try:
        wrong = nn.Sequential(gru, linear)(x)
    except TypeError as error:
        wrong = str(error)
    assert "must be Tensor, not tuple" in wrong
    print("wrong:", wrong)
    # Right: take the outputs out.
    output, _ = gru(x)
    right = linear(output)
    assert right.shape == (5, 1, 1)
    print("right:", tuple(right.shape))
    print("why:   the outputs are the states of the last layer at all steps")


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
