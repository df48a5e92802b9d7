"""Adapt a trained network to new targets by low-rank updates of its weights (LoRA).

Each layer keeps its weight W, frozen, and gets a trainable update B @ A of low rank
beside it: 4,840 parameters in place of 101,110. B starts as zeros, so the loss of step
1 is exactly that of the trained network. In the end each update is added to its weight,
which leaves plain layers that compute the same.
"""

import argparse
import copy
import math

import numpy as np
import torch
from torch import nn

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

LEARNING_RATE = 1e-4


class LowRankAdapter(nn.Module):
    """A frozen linear layer and a trainable update of its weight, of a low rank.

    LoRA: Hu et al., 2021, https://arxiv.org/abs/2106.09685
    """

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(rank, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear does
        self.scale = alpha / rank

    def forward(self, x):
        # B @ A is as large as the weight. It is not needed here.
        update = (x @ self.A.T) @ self.B.T  # (N, rank), then (N, outputs)
        return self.linear(x) + self.scale * update

    @torch.no_grad()
    def merged(self):
        """Return a plain linear layer that computes the same."""
        linear = copy.deepcopy(self.linear)
        linear.weight += self.scale * (self.B @ self.A)
        return linear


def with_adapters(model, rank, alpha):
    """Return a copy of a Sequential whose linear layers have adapters."""
    layers = []
    for layer in copy.deepcopy(model):
        if isinstance(layer, nn.Linear):
            layer = LowRankAdapter(layer, rank, alpha)
        layers.append(layer)
    return nn.Sequential(*layers)


def without_adapters(model):
    """Return a copy of a Sequential with each adapter merged into its layer."""
    layers = []
    for layer in model:
        if isinstance(layer, LowRankAdapter):
            layer = layer.merged()
        layers.append(layer)
    return nn.Sequential(*layers)


def loss_of(model, x, y):
    """Return the sum of the squared errors."""
    return (model(x) - y).square().sum()


def train(model, x, y, steps):
    """Train what is not frozen; yield each step and the loss before its update."""
    trainable = [param for param in model.parameters() if param.requires_grad]
    for t in range(1, steps + 1):
        loss = loss_of(model, x, y)
        yield t, loss.item()

        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for param in trainable:
                param -= LEARNING_RATE * param.grad


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--rank", type=int, default=4)
    args = parser.parse_args()

    # Inputs and targets are random: standard normal, with seed 0.
    randn = np.random.default_rng(0).standard_normal
    x = torch.tensor(randn((N, D_in), np.float32), device=args.device)
    y = torch.tensor(randn((N, D_out), np.float32), device=args.device)

    # The base network, trained on y.
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(D_in, H), nn.ReLU(), nn.Linear(H, D_out))
    base.to(args.device)
    for _ in train(base, x, y, steps=200):
        pass

    # The new targets resemble the old ones: the first four outputs change their sign.
    new_y = y.clone()
    new_y[:, :4] *= -1
    print(f"base network, old targets  loss {loss_of(base, x, y).item():.4e}")
    print(f"base network, new targets  loss {loss_of(base, x, new_y).item():.4e}")

    # alpha scales the update; twice the rank is a common choice.
    model = with_adapters(base, args.rank, alpha=2 * args.rank).to(args.device)
    total = sum(param.numel() for param in base.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"rank {args.rank}  trained parameters {trained}, frozen {total}")
    for t, loss in train(model, x, new_y, args.steps):
        if t == 1 or t % 50 == 0:
            print(f"step {t:4d}  loss {loss:.4e}")

    print(f"with adapters    loss {loss_of(model, x, new_y).item():.4e}")
    merged = without_adapters(model)
    print(f"adapters merged  loss {loss_of(merged, x, new_y).item():.4e}")

    # The base network is still there: an adapter can be taken off or exchanged.
    for layer in model:
        if isinstance(layer, LowRankAdapter):
            nn.init.zeros_(layer.B)
    print(f"adapters zeroed  loss {loss_of(model, x, y).item():.4e} on the old targets")


if __name__ == "__main__":
    main()
