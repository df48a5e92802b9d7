"""The small GPT: compared with loops over positions and heads in NumPy float64."""

import math
import sys
from unittest import mock

import char_gpt
import numpy as np
import pytest
import torch
from collection import outcome
from torch import nn
from torch.func import functional_call

WORDS = ["the", "window", "holds", "all", "that", "attention", "sees", "été,", ""]
TEXT = " ".join(np.random.default_rng(0).choice(WORDS, 1000))[:4000]
VOCABULARY = "".join(sorted(set(TEXT)))
V = len(VOCABULARY)
CHARS = char_gpt.encode(TEXT, VOCABULARY)


def small(T=8, D=12, heads=3, blocks=2):
    torch.manual_seed(0)
    return char_gpt.CharGPT(V, T=T, D=D, heads=heads, blocks=blocks)


def trained(**sizes):
    """Return a small model that has left its initial weights behind, in float64."""
    model = small(**sizes)
    char_gpt.train(model, CHARS, CHARS[:100], steps=50)
    return model.double().eval()


# The model


def by_loops(model, chars):
    """Return the logits at each position, (T, V), by NumPy and its weights alone."""
    weights = {name: w.double().numpy() for name, w in model.state_dict().items()}

    def linear(name, h):
        return weights[f"{name}.weight"] @ h + weights[f"{name}.bias"]

    def norm(name, h):
        centered = h - h.mean()
        scaled = centered / np.sqrt((centered**2).mean() + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def gelu(h):
        return np.array([x * (1 + math.erf(x / 2**0.5)) / 2 for x in h])

    def attention(name, h, heads):
        """Return what each position gets from itself and those before."""
        D = len(h[0])
        size = D // heads
        qkv = [linear(f"{name}.qkv", each) for each in h]
        found = []
        for t in range(len(h)):
            mixed = []
            for start in range(0, D, size):
                query = qkv[t][start : start + size]
                keys = [qkv[s][D:][start : start + size] for s in range(t + 1)]
                values = [qkv[s][2 * D :][start : start + size] for s in range(t + 1)]
                shares = np.array([np.exp(query @ key / size**0.5) for key in keys])
                shares /= shares.sum()
                mixed.append(sum(share * v for share, v in zip(shares, values)))
            found.append(linear(f"{name}.linear", np.concatenate(mixed)))
        return found

    h = [
        weights["embedding.weight"][char] + weights["position.weight"][t]
        for t, char in enumerate(chars)
    ]
    for i, block in enumerate(model.blocks):
        name = f"blocks.{i}"
        normed = [norm(f"{name}.norm1", each) for each in h]
        looked = attention(f"{name}.attention", normed, block.attention.heads)
        h = [each + more for each, more in zip(h, looked)]
        for t, each in enumerate(h):
            wide = gelu(linear(f"{name}.mlp.0", norm(f"{name}.norm2", each)))
            h[t] = each + linear(f"{name}.mlp.2", wide)
    logits = [linear("linear", norm("norm", each)) for each in h]
    return torch.from_numpy(np.stack(logits))


def error(model):
    """Return the largest distance of the model's logits from those of the loops."""
    with torch.no_grad():
        logits = model(torch.stack([CHARS[:8], CHARS[50:58]]))
    expected = torch.stack([by_loops(model, CHARS[i : i + 8]) for i in (0, 50)])
    return (logits - expected).abs().max().item()


@pytest.mark.parametrize("heads", [1, 3])
def test_model_is_a_loop_over_positions_and_heads(heads):
    assert error(trained(heads=heads)) < 1e-12


def test_shorter_texts_get_the_first_positions():
    model = trained()
    whole, part = model(CHARS[None, :8]), model(CHARS[None, :5])
    torch.testing.assert_close(part, whole[:, :5], rtol=0, atol=1e-12)
    with pytest.raises(IndexError):
        model(CHARS[None, :9])


def test_gradients_are_finite_differences():
    model = trained(T=4, D=4, heads=2)
    names = [name for name, _ in model.named_parameters()]
    weights = [w.detach().requires_grad_() for w in model.parameters()]
    inputs, targets = CHARS[None, :4], CHARS[1:5]

    def loss(*weights):
        logits = functional_call(model, dict(zip(names, weights)), (inputs,))
        return nn.functional.cross_entropy(logits[0], targets)

    assert torch.autograd.gradcheck(loss, weights)


def test_a_future_character_changes_nothing_before_it():
    """Not even by rounding: what is masked has a weight of exactly 0."""
    model = small(T=16).eval()
    before = model(CHARS[None, :16])
    for t in range(16):
        other = CHARS[:16].clone()
        other[t] = (other[t] + 1) % V
        after = model(other[None])
        assert torch.equal(after[:, :t], before[:, :t])
        assert (after[:, t:] != before[:, t:]).any(dim=2).all()


def test_positions_tell_a_permuted_text_from_the_text():
    """In one block: the last character sees the others as a set, but for positions."""
    model = trained(blocks=1)
    text, permuted = CHARS[None, :8], CHARS[[3, 1, 0, 6, 2, 5, 4, 7]][None]

    def last(x):
        return model(x)[0, -1]

    assert (last(text) - last(permuted)).abs().max() > 1e-3
    nn.init.zeros_(model.position.weight)
    torch.testing.assert_close(last(text), last(permuted), rtol=0, atol=1e-12)


sdpa = char_gpt.scaled_dot_product_attention


def sees_one_ahead(query, key, value, is_causal):
    T = query.shape[2]
    mask = torch.ones(T, T, dtype=torch.bool).tril(diagonal=1)
    return sdpa(query, key, value, attn_mask=mask)


def sees_all(query, key, value, is_causal):
    return sdpa(query, key, value)


def is_not_scaled(query, key, value, is_causal):
    return sdpa(query, key, value, is_causal=True, scale=1.0)


def mixes_heads(attention, h):
    N, T, D = h.shape
    return h.reshape(N, attention.heads, T, D // attention.heads)


def lacks_residual(block, x):
    x = block.attention(block.norm1(x))
    return x + block.mlp(block.norm2(x))


def normalizes_after(block, x):
    x = block.norm1(x + block.attention(x))
    return block.norm2(x + block.mlp(x))


def drops_always(dropout, x):
    return nn.functional.dropout(x, dropout.p, training=True)


def shifts(embedding, places):
    return nn.functional.embedding((places + 1) % 8, embedding.weight)


FAULTS = {
    "mask off by one": ("scaled_dot_product_attention", sees_one_ahead),
    "no mask": ("scaled_dot_product_attention", sees_all),
    "no scaling": ("scaled_dot_product_attention", is_not_scaled),
    "heads mixed up by a reshape": ("Attention.split", mixes_heads),
    "missing residual": ("Block.forward", lacks_residual),
    "normalized after": ("Block.forward", normalizes_after),
    "dropout left on": ("nn.Dropout.forward", drops_always),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_model_would_be_seen(name):
    model = trained()
    place, wrong = FAULTS[name]
    with mock.patch(f"char_gpt.{place}", wrong):
        assert error(model) > 1e-2


def test_shifted_positions_would_be_seen():
    model = trained()
    model.position.forward = shifts.__get__(model.position)
    assert error(model) > 1e-2


# Training and measuring


def test_pieces_are_from_anywhere_and_targets_come_one_character_later():
    chars = torch.arange(20)
    torch.manual_seed(0)
    starts = set()
    for _ in range(50):
        inputs, targets = char_gpt.draw(chars, T=8, N=4)
        assert inputs.shape == (4, 8)
        assert torch.equal(inputs, inputs[:, :1] + torch.arange(8))
        assert torch.equal(targets, inputs + 1)
        starts |= set(inputs[:, 0].tolist())
    # The last character is a target only.
    assert starts == set(range(12))


def bits_of_each_character_alone(model, chars):
    """Feed each character's context for itself; return the mean of its bits."""
    T, known = model.T, len(chars) - 1
    ends = [*range(T, known, T // 2), known]
    total = 0.0
    for place in range(1, len(chars)):
        end = next(end for end in ends if place <= end)
        context = chars[max(end - T, 0) : place]
        assert len(context) == place or len(context) > T // 2
        logits = by_loops(model, context)[-1]
        total -= logits.log_softmax(dim=0)[chars[place]].item() / math.log(2)
    return total / (len(chars) - 1)


@pytest.mark.parametrize("length", [2, 8, 9, 10, 13, 14, 40])
def test_every_character_is_counted_once_with_half_a_window_of_context(length):
    model, chars = trained(), CHARS[:length]
    model.train()  # measuring has to turn dropout off by itself
    expected = bits_of_each_character_alone(model, chars)
    assert char_gpt.bits_per_character(model, chars) == pytest.approx(expected)


def test_training_stops_when_it_gets_worse_and_keeps_the_best_weights():
    """In random letters there is nothing to learn, and much to memorize."""
    model, chars = small(D=48), torch.randint(8, (1000,))
    history = char_gpt.train(model, chars[:900], chars[900:], steps=2000)
    assert len(history) < 12
    assert history.index(min(history)) == len(history) - 4
    bits = bits_of_each_character_alone(model, chars[900:])
    assert bits == pytest.approx(min(history), rel=1e-5)


def test_training_is_adamw_with_clipped_gradients_and_a_falling_rate():
    """Written out, with new gradients at each step, and without dropout."""
    steps, rate = 40, 4e-3
    model, other = small().double(), small().double()
    for module in [*model.modules(), *other.modules()]:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():  # so wrong at first that gradients are clipped
        model.linear.weight.mul_(6)
        other.linear.weight.mul_(6)
    torch.manual_seed(1)
    history = char_gpt.train(model, CHARS, CHARS[:100], steps)
    assert history[-1] == min(history)  # so these weights are left in the model

    torch.manual_seed(1)
    weights = list(other.parameters())
    means = [torch.zeros_like(w) for w in weights]
    squares = [torch.zeros_like(w) for w in weights]
    clipped = 0
    for step in range(1, steps + 1):
        inputs, targets = char_gpt.draw(CHARS, other.T)
        loss = -other(inputs).log_softmax(dim=2).gather(2, targets[..., None]).mean()
        grads = torch.autograd.grad(loss, weights)
        norm = sum(grad.square().sum() for grad in grads).sqrt()
        clipped += norm > 1
        lr = rate * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        for w, grad, mean, square in zip(weights, grads, means, squares):
            grad = grad / max(norm, 1)
            mean.lerp_(grad, 0.1)
            square.lerp_(grad.square(), 0.001)
            denominator = (square / (1 - 0.999**step)).sqrt() + 1e-8
            with torch.no_grad():
                w -= lr * 0.1 * w
                w -= lr * mean / (1 - 0.9**step) / denominator
    assert 0 < clipped < steps
    for found, expected in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_dropout_is_on_in_every_step_of_the_training():
    model, modes = small(), []
    model.blocks[0].dropout.register_forward_hook(
        lambda dropout, args, result: modes.append(dropout.training)
    )
    char_gpt.train(model, CHARS, CHARS[:9], steps=51)
    # Each of the two outputs of a block is dropped from; three measurements are made.
    assert modes.count(True) == 2 * 51
    assert modes.count(False) == 2 * 3


# The program


def train(*options):
    """Train for two steps; return (exit status, stdout, stderr)."""
    argv = map(str, ["--steps", 2, *options])
    return outcome("rnn/char_gpt.py", argv=argv)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "words.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "words.txt"


def test_a_saved_model_writes_what_the_one_in_memory_does(file, tmp_path):
    path = tmp_path / "model.pt"
    code, out, err = train("--text", file, "--save", path)
    assert (code, err) == (0, "")
    assert sorted(tmp_path.iterdir()) == [path, file]

    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["vocabulary"] == VOCABULARY
    model = char_gpt.CharGPT(V)
    model.load_state_dict(checkpoint["weights"])
    written = char_gpt.sample(model, VOCABULARY)
    assert len(written) == 300 and out.endswith(f"\n{written}\n")


def test_text_is_drawn_with_the_probabilities_of_the_model():
    """Draw again, from the logits of the loops; only a window's length is seen."""
    model = trained()
    model.train()  # writing, too, has to turn dropout off by itself
    found = char_gpt.sample(model, VOCABULARY, length=30)
    torch.manual_seed(0)
    read = [0]
    for _ in range(30):
        logits = by_loops(model, read[-8:])[-1]
        read.append(logits.softmax(dim=0).multinomial(1).item())
    assert found == "".join(VOCABULARY[char] for char in read[1:])
    assert len(set(found)) > 5


def test_the_last_tenth_is_never_trained_on(file):
    argv = ["char_gpt.py", "--text", str(file)]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(char_gpt, "train", return_value=[1.0]) as train,
    ):
        char_gpt.main()
    _, chars, held_out, _ = train.call_args.args
    assert torch.equal(chars, CHARS[:3600]) and torch.equal(held_out, CHARS[3600:])


@pytest.mark.parametrize(
    "content", [None, b"too short", "été ".encode("latin-1") * 500]
)
def test_what_is_no_text_is_refused(content, tmp_path):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    code, out, err = train("--text", path)
    assert (code, out) == (2, "") and err.startswith("usage: ")
    assert "argument --text: " in err.splitlines()[-1]
    assert str(path) in err.splitlines()[-1]


def test_a_text_may_have_one_character(tmp_path):
    (tmp_path / "a.txt").write_text("a" * 1000, encoding="utf-8-sig")
    code, out, _ = train("--text", tmp_path / "a.txt")
    assert code == 0 and out.splitlines()[-1] == "a" * 300
