"""Train causal self-attention with two heads, by nn.MultiheadAttention.

The layer holds the weights itself: those of queries, keys and values in one matrix, and
each transposed, as nn.Linear stores them. The losses are those of attention_by_hand.py.
"""

import argparse

import numpy as np
import torch
from torch import nn

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

# Like nn.Linear, the layer stores its weights transposed.
attention = nn.MultiheadAttention(D, heads, bias=False, batch_first=True)
attention.load_state_dict(
    {
        "in_proj_weight": torch.cat([w_query, w_key, w_value], dim=1).T,
        "out_proj.weight": w_heads.T,
    }
)
attention.to(w_heads)

weights = [w_number, w_position, w_out]
for w in weights:
    w.requires_grad = True
optimizer = torch.optim.Adam([*weights, *attention.parameters()], lr=5e-3)

# True where a step would look at a later one: above the diagonal.
future = torch.ones(T, T, dtype=torch.bool, device=args.device).triu(diagonal=1)

for t in range(1, args.steps + 1):
    # New numbers at every step, so there is nothing to memorize but the rule.
    x = torch.tensor(randn((N, T, 1), np.float32), device=args.device)
    y = x[:, 2:-1] - x[:, :-3]  # (N, T - 3, 1), from the fourth time step on

    # Embed each number, and add where it stands: attention itself sees no order.
    embedded = x @ w_number + w_position  # (N, T, D)

    # Self-attention: queries, keys and values come from the same sequence.
    together, _ = attention(
        embedded, embedded, embedded, attn_mask=future, need_weights=False
    )  # (N, T, D)
    y_pred = (together @ w_out)[:, 3:]  # (N, T - 3, 1)

    loss = (y_pred - y).square().mean()
    if t == 1 or t % 50 == 0:
        print(f"step {t:4d}  loss {loss.item():.4e}")

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
