"""Family C: attention written out, by einsum, by one function and by a layer."""

import draw_attention
import numpy as np
import pytest
import torch
from collection import curve

BY_HAND = "rnn/attention_by_hand.py"
EINSUM = "rnn/attention_with_einsum.py"
SDPA = "rnn/attention_with_sdpa.py"
MHA = "rnn/attention_with_mha.py"
FAMILY_C = [BY_HAND, EINSUM, SDPA, MHA]
N, T, D, HEADS, LAGS = 64, 12, 64, 2, (1, 3)
STEPS = 200  # in half of them the loss falls to a ten-thousandth


def distance(one, other):
    """Return the largest distance of two curves, in units of the first loss.

    sqrt(loss) is the length of the error vector, which rounding moves by a few eps.
    """
    return (one.sqrt() - other.sqrt()).abs().max() / other[0].sqrt()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("script", FAMILY_C[1:])
def test_all_print_the_losses_of_attention_by_hand(script, dtype):
    bound = 64 * torch.finfo(dtype).eps
    how = {"dtype": dtype, "steps": STEPS}
    assert distance(curve(script, **how), curve(BY_HAND, **how)) < bound


@pytest.mark.parametrize("script", FAMILY_C)
def test_float32_and_float64_tell_the_same_story(script):
    bound = 256 * torch.finfo(torch.float32).eps
    in_float64 = curve(script, dtype=torch.float64, steps=STEPS)
    assert distance(curve(script, steps=STEPS), in_float64) < bound


def by_loops(steps):
    """Train in float64, position by position and head by head; return the losses."""
    randn = np.random.default_rng(0).standard_normal

    def drawn(*shape):
        return torch.from_numpy(randn(shape, np.float32)).double()

    shapes = [(1, D), (T, D), (D, D), (D, D), (D, D), (D, D), (D, 1)]
    scales = [1, 1, 8, 8, 8, 8, 8]
    weights = [drawn(*shape) / scale for shape, scale in zip(shapes, scales)]
    for w in weights:
        w.requires_grad_()
    w_number, w_position, w_query, w_key, w_value, w_heads, w_out = weights
    optimizer = torch.optim.Adam(weights, lr=5e-3)
    size = D // HEADS

    found = []
    for _ in range(steps):
        x = drawn(N, T, 1)
        h = [x[:, t] * w_number + w_position[t] for t in range(T)]  # T times (N, D)
        loss = 0
        for t in range(max(LAGS), T):
            from_heads = []
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                query = h[t] @ w_query[:, part]
                keys = [h[s] @ w_key[:, part] for s in range(t + 1)]
                dots = [(query * key).sum(dim=1) / size**0.5 for key in keys]
                shares = [dot.exp() for dot in dots]
                values = [h[s] @ w_value[:, part] for s in range(t + 1)]
                mixed = sum(a[:, None] * v for a, v in zip(shares, values))
                from_heads.append(mixed / sum(shares)[:, None])
            y_pred = torch.cat(from_heads, dim=1) @ w_heads @ w_out
            y = x[:, t - LAGS[0]] - x[:, t - LAGS[1]]
            loss = loss + (y_pred - y).square().mean() / (T - max(LAGS))
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.tensor(found, dtype=torch.float64)


def test_attention_by_hand_is_a_loop_over_positions():
    expected = by_loops(20)
    found = curve(BY_HAND, steps=20, dtype=torch.float64)
    assert distance(found, expected) < 64 * torch.finfo(torch.float64).eps


FAULTS = [
    (BY_HAND, "triu(diagonal=1)", "triu(diagonal=2)"),
    (BY_HAND, "softmax(dim=-1)", "softmax(dim=-2)"),
    (BY_HAND, " / math.sqrt(D // heads)", ""),
    (
        BY_HAND,
        "h.view(N, T, heads, D // heads).transpose(1, 2)",
        "h.view(N, heads, T, -1)",
    ),
    (BY_HAND, "mixed.transpose(1, 2).reshape", "mixed.reshape"),
    (BY_HAND, " + w_position", ""),
    (BY_HAND, "query @ key.mT", "key @ query.mT"),
    (BY_HAND, "x[:, 2:-1] - x[:, :-3]", "x[:, 3:] - x[:, 1:-2]"),
    (BY_HAND, "split(embedded @ w_value)", "split(embedded @ w_key)"),
    (EINSUM, "nthk,nshk->nhts", "nshk,nthk->nhts"),
    (EINSUM, " / math.sqrt(D // heads)", ""),
    (EINSUM, "w.view(D, heads, D // heads)", "w.view(D, D // heads, heads).mT"),
    (SDPA, "is_causal=True", "is_causal=False"),
    (SDPA, "mixed.transpose(1, 2).reshape", "mixed.reshape"),
    (MHA, "attn_mask=future", "attn_mask=~future"),
    (MHA, "[w_query, w_key, w_value]", "[w_key, w_query, w_value]"),
    (MHA, "w_heads.T", "w_heads"),
]


@pytest.mark.parametrize("script, right, wrong", FAULTS)
def test_a_fault_would_be_seen(script, right, wrong):
    """Each goes far beyond the bound, which is the one of all steps."""
    eps = torch.finfo(torch.float32).eps
    faulty = curve(script, (right, wrong), steps=50)
    assert distance(faulty, curve(BY_HAND, steps=50)) > 1000 * eps


@pytest.fixture(scope="module")
def attention():
    return draw_attention.trained_attention()


def test_each_head_looks_back_at_one_of_the_two_numbers(attention):
    assert attention.triu(diagonal=1).count_nonzero() == 0
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(HEADS, T))
    found = [rows[3:].diagonal(3 - lag).mean() for rows in attention for lag in LAGS]
    torch.testing.assert_close(
        torch.stack(found), torch.tensor([0.0, 1.0, 1.0, 0.0]), rtol=0, atol=0.05
    )


def test_picture_shows_the_attention(attention):
    *axes, _ = draw_attention.draw(attention).axes
    for ax, rows in zip(axes, attention, strict=True):
        (image,) = ax.images
        assert torch.equal(torch.from_numpy(image.get_array().data), rows)
