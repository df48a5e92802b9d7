"""Average a loss over the real steps of a padded batch, but not over its padding.

A loss such as mse_loss takes the mean over everything that it gets, padding included.
A mask, True where a step is real, picks what counts; then the loss is that of the
sequences without any padding.
"""

import argparse

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import pad_sequence

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
args = parser.parse_args()

# N is batch size; D_in is input dimension; H is hidden dimension.
N, D_in, H = 16, 8, 16
lengths = torch.arange(1, N + 1)

torch.manual_seed(0)
inputs = [torch.randn(length, D_in).to(args.device) for length in lengths]
targets = [torch.randn(length, H).to(args.device) for length in lengths]
gru = nn.GRU(D_in, H).to(args.device)

# The loss as it should be: every sequence alone, and the mean over all of their steps.
outputs = [gru(sequence)[0] for sequence in inputs]
loss = mse_loss(torch.cat(outputs), torch.cat(targets))
print(f"alone   loss {loss.item():.4e}")

# Padded with zeros, all of them are one batch of T time steps.
y_pred, _ = gru(pad_sequence(inputs))  # (T, N, H)
y = pad_sequence(targets)  # (T, N, H)
loss = mse_loss(y_pred, y)
print(f"padded  loss {loss.item():.4e}")

# The mask is True at the real steps: the first one, two, three, ... of each column.
T = len(y)
mask = (torch.arange(T)[:, None] < lengths).to(args.device)  # (T, N)
loss = mse_loss(y_pred[mask], y[mask])
print(f"masked  loss {loss.item():.4e}")
