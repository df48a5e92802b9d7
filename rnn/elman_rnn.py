"""Train an Elman RNN written by hand beside torch.nn.RNN, on a task that needs memory.

The input is a sequence of random bits; the question at each step is whether the bit
differs from the one before. A network that sees one bit at a time can only guess, at a
loss of ln 2 = 6.9315e-01. Both networks start from the same weights and print the same
losses: nn.RNN is this loop.
"""

import argparse

import torch
from torch import nn


class ElmanRNN(nn.Module):
    """H tanh units that see the input and their own values of the step before.

    Takes x, (T, N, D_in), and the hidden state to start from, (N, H), zeros if left
    out. Returns the hidden states of all steps, (T, N, H), and the last one, (N, H).
    Elman, Finding Structure in Time, 1990.
    """

    def __init__(self, D_in, H):
        super().__init__()
        self.input_linear = nn.Linear(D_in, H)
        self.hidden_linear = nn.Linear(H, H)

    def forward(self, x, h=None):
        if h is None:
            h = x.new_zeros(x.shape[1], self.hidden_linear.in_features)  # (N, H)

        # The inputs do not wait for one another: one product serves all time steps.
        from_inputs = self.input_linear(x)  # (T, N, H)

        hs = []
        for from_input in from_inputs:
            h = (from_input + self.hidden_linear(h)).tanh()  # (N, H)
            hs.append(h)
        return torch.stack(hs), h


class Detector(nn.Module):
    """An RNN and a Linear that reads its states; maps (T, N, D_in) to (T, N, 1)."""

    def __init__(self, rnn, H):
        super().__init__()
        self.rnn = rnn
        self.linear = nn.Linear(H, 1)

    def forward(self, x):
        hs, _ = self.rnn(x)  # (T, N, H)
        return self.linear(hs)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
args = parser.parse_args()

# T is time steps; N is batch size; D_in is input dimension; H is hidden dimension.
T, N, D_in, H = 10, 64, 1, 32

torch.manual_seed(0)
by_hand = Detector(ElmanRNN(D_in, H), H)
from_nn = Detector(nn.RNN(D_in, H), H)

# nn.RNN keeps the same weights and biases under other names; l0 is its only layer.
from_nn.load_state_dict(
    {
        "rnn.weight_ih_l0": by_hand.rnn.input_linear.weight,
        "rnn.bias_ih_l0": by_hand.rnn.input_linear.bias,
        "rnn.weight_hh_l0": by_hand.rnn.hidden_linear.weight,
        "rnn.bias_hh_l0": by_hand.rnn.hidden_linear.bias,
        "linear.weight": by_hand.linear.weight,
        "linear.bias": by_hand.linear.bias,
    }
)

models = [by_hand.to(args.device), from_nn.to(args.device)]
optimizers = [torch.optim.Adam(model.parameters(), lr=3e-2) for model in models]
loss_fn = nn.BCEWithLogitsLoss()

for t in range(1, args.steps + 1):
    # New bits at every step, so there is nothing to memorize but the rule.
    x = torch.randint(2, (T, N, D_in)).float().to(args.device)
    y = (x[1:] != x[:-1]).float()  # (T - 1, N, 1)

    losses = []
    for model, optimizer in zip(models, optimizers):
        # The first bit has none before it, so its prediction does not count.
        y_pred = model(x)[1:]  # (T - 1, N, 1)
        loss = loss_fn(y_pred, y)
        losses.append(loss.item())

        # Backpropagation through time: backward() goes back through all T steps.
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {losses[0]:.4e}  nn.RNN {losses[1]:.4e}")
