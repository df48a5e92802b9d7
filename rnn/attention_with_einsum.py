"""Train causal self-attention with two heads, every product written with einsum.

Each product names its dimensions: n is the sample, t the step that looks, s the step
that is looked at, h the head, d an element of an embedding, k an element of one head's
vectors. Nothing has to be transposed. The losses are those of attention_by_hand.py.
"""

import argparse
import math

import numpy as np
import torch

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
args = parser.parse_args()

# N is batch size; T is time steps; D is embedding dimension,
# of which each head has its part of D / heads.
N, T, D, heads = 64, 12, 64, 2

# Initial weights are random: normal, with seed 0. Those that multiply D numbers are
# divided by the square root of D.
randn = np.random.default_rng(0).standard_normal
w_number = torch.tensor(randn((1, D), np.float32), device=args.device)
w_position = torch.tensor(randn((T, D), np.float32), device=args.device)
w_query = torch.tensor(randn((D, D), np.float32) / 8, device=args.device)
w_key = torch.tensor(randn((D, D), np.float32) / 8, device=args.device)
w_value = torch.tensor(randn((D, D), np.float32) / 8, device=args.device)
w_heads = torch.tensor(randn((D, D), np.float32) / 8, device=args.device)
w_out = torch.tensor(randn((D, 1), np.float32) / 8, device=args.device)

weights = [w_number, w_position, w_query, w_key, w_value, w_heads, w_out]
for w in weights:
    w.requires_grad = True
optimizer = torch.optim.Adam(weights, lr=5e-3)

# True where a step would look at a later one: above the diagonal.
future = torch.ones(T, T, dtype=torch.bool, device=args.device).triu(diagonal=1)


def per_head(w):
    """Give each head its columns of (D, D): return (D, heads, D / heads)."""
    return w.view(D, heads, D // heads)


for t in range(1, args.steps + 1):
    # New numbers at every step, so there is nothing to memorize but the rule.
    x = torch.tensor(randn((N, T, 1), np.float32), device=args.device)
    y = x[:, 2:-1] - x[:, :-3]  # (N, T - 3, 1), from the fourth time step on

    # Embed each number, and add where it stands: attention itself sees no order.
    embedded = x @ w_number + w_position  # (N, T, D)

    # Each step asks with a query, is found by its key, and hands out its value.
    query = torch.einsum("ntd,dhk->nthk", embedded, per_head(w_query))
    key = torch.einsum("ntd,dhk->nthk", embedded, per_head(w_key))
    value = torch.einsum("ntd,dhk->nthk", embedded, per_head(w_value))

    # How well does each query match each key? Scaled, so that softmax stays soft.
    scores = torch.einsum("nthk,nshk->nhts", query, key) / math.sqrt(D // heads)
    scores = scores.masked_fill(future, -math.inf)
    attention = scores.softmax(dim=-1)  # each row sums to 1

    # Each step gets the average of the values, weighted by its row of attention.
    mixed = torch.einsum("nhts,nshk->nthk", attention, value)
    together = mixed.flatten(start_dim=2)  # (N, T, D)
    y_pred = (together @ w_heads @ w_out)[:, 3:]  # (N, T - 3, 1)

    loss = (y_pred - y).square().mean()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
