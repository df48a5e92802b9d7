"""Train causal self-attention with two heads, by scaled_dot_product_attention.

One call takes the place of products, mask and softmax. It need not keep the attention
of all pairs of steps in memory, and does not return it. The losses are those of
attention_by_hand.py.
"""

import argparse

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

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


def split(h):
    """Give each head its part of (N, T, D): return (N, heads, T, D / heads)."""
    return h.view(N, T, heads, D // heads).transpose(1, 2)


for t in range(1, args.steps + 1):
    # New numbers at every step, so there is nothing to memorize but the rule.
    x = torch.tensor(randn((N, T, 1), np.float32), device=args.device)
    y = x[:, 2:-1] - x[:, :-3]  # (N, T - 3, 1), from the fourth time step on

    # Embed each number, and add where it stands: attention itself sees no order.
    embedded = x @ w_number + w_position  # (N, T, D)

    # Each step asks with a query, is found by its key, and hands out its value.
    query = split(embedded @ w_query)  # (N, heads, T, D / heads)
    key = split(embedded @ w_key)
    value = split(embedded @ w_value)

    # Scores, mask, softmax and average in one call: is_causal hides later steps.
    mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
    together = mixed.transpose(1, 2).reshape(N, T, D)
    y_pred = (together @ w_heads @ w_out)[:, 3:]  # (N, T - 3, 1)

    loss = (y_pred - y).square().mean()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
