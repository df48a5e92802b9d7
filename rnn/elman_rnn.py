"""Train an Elman RNN written by hand beside torch.nn.RNN, on a task for memory.

The input is random bits; the question is whether each differs from the one before it.
Who sees one bit at a time can only guess, at a loss of ln 2 = 6.9315e-01. Both networks
start from the same weights and print the same losses: nn.RNN is this loop.
"""

import argparse

import torch
from torch.nn import functional


class ElmanRNN(torch.nn.Module):
    """H tanh units that see the input and their own values of the step before.

    Called with x, (T, N, D_in), and the hidden state to start from, (N, H), zeros if
    left out. Returns the hidden states of all steps, (T, N, H), and the last, (N, H).
    Elman, Finding Structure in Time, 1990.
    """

    def __init__(self, D_in, H):
        super().__init__()
        self.input_linear = torch.nn.Linear(D_in, H)
        self.hidden_linear = torch.nn.Linear(H, H)

    def forward(self, x, h=None):
        weight, bias = self.hidden_linear.weight, self.hidden_linear.bias
        if h is None:
            h = x.new_zeros(x.shape[1], len(bias))  # (N, H)
        hs = []
        # The inputs do not wait for each other: one product serves all time steps.
        for from_input in self.input_linear(x):  # (N, H)
            # This is hidden_linear(h), without looking up its weight at every step.
            h = (from_input + functional.linear(h, weight, bias)).tanh()  # (N, H)
            hs.append(h)
        return torch.stack(hs), h


class Detector(torch.nn.Module):
    """An RNN and a Linear that reads its states; maps (T, N, D_in) to (T, N, 1)."""

    def __init__(self, rnn, H):
        super().__init__()
        self.rnn = rnn
        self.linear = torch.nn.Linear(H, 1)

    def forward(self, x):
        hs, _ = self.rnn(x)  # (T, N, H)
        return self.linear(hs)


devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=500, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")

T, N, D_in, H = 10, 64, 1, 32  # time steps, batch, input and hidden size
torch.manual_seed(0)
by_hand = Detector(ElmanRNN(D_in, H), H)
from_nn = Detector(torch.nn.RNN(D_in, H), H)

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
loss_fn = torch.nn.BCEWithLogitsLoss()

for t in range(1, args.steps + 1):
    # New bits at every step, so nothing can be learned by heart.
    x = torch.randint(2, (T, N, D_in)).float().to(args.device)
    y = (x[1:] != x[:-1]).float()  # (T - 1, N, 1)

    # Each model takes its own step: backward() goes through all T time steps, to h = 0.
    losses = []
    for model, optimizer in zip(models, optimizers, strict=True):
        loss = loss_fn(model(x)[1:], y)  # ()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {losses[0]:.4e}  nn.RNN {losses[1]:.4e}")
