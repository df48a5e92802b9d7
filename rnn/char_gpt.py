"""Train a small GPT, a decoder-only Transformer, as a character-level language model.

At every character of a text the model predicts the next one, as in char_rnn.py. It has
no state: attention looks back at the last 64 characters themselves. A held-out text
tells how many bits a character takes, and when to stop (early stopping). Without
--text, the text is Python's own documentation.
"""

import argparse
import copy
import io
import lzma
import math
import os
import sys
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from tqdm import tqdm


class Attention(nn.Module):
    """Causal self-attention with several heads: (N, T, D) to (N, T, D)."""

    def __init__(self, D, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(D, 3 * D)
        self.linear = nn.Linear(D, D)

    def split(self, h):
        """Give each head its part of (N, T, D): return (N, heads, T, D / heads)."""
        return h.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x):
        query, key, value = map(self.split, self.qkv(x).chunk(3, dim=2))
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.linear(mixed.transpose(1, 2).flatten(start_dim=2))


class Block(nn.Module):
    """Attention, then an MLP at each position: (N, T, D) to (N, T, D).

    Both add to what they are given (a residual connection), and see it normalized.
    """

    def __init__(self, D, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(D)
        self.attention = Attention(D, heads)
        self.norm2 = nn.LayerNorm(D)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class CharGPT(nn.Module):
    """Predicts the next character at each of up to T positions of N texts.

    V is the size of the vocabulary, D of the embeddings, T of the window. Takes indices
    of characters, (N, T) or shorter. Returns logits, (N, T, V).
    """

    def __init__(self, V, T=64, D=128, heads=4, blocks=3):
        super().__init__()
        self.T = T
        self.embedding = nn.Embedding(V, D)
        self.position = nn.Embedding(T, D)
        # Smaller than PyTorch's default, 1, so that the blocks can soon outweigh it.
        nn.init.normal_(self.embedding.weight, std=0.3)
        nn.init.normal_(self.position.weight, std=0.3)
        self.dropout = nn.Dropout(0.2)
        self.blocks = nn.Sequential(*[Block(D, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(D)
        self.linear = nn.Linear(D, V)

    def forward(self, x):
        positions = torch.arange(x.shape[1], device=x.device)  # (T,)
        h = self.embedding(x) + self.position(positions)  # (N, T, D)
        h = self.blocks(self.dropout(h))
        return self.linear(self.norm(h))


def read_text(path):
    """Return the text of a file in UTF-8; without one, Python's documentation."""
    if path is None:
        text = "".join(topics[name] for name in sorted(topics))
        return text[:100_000]
    # utf-8-sig skips the byte order mark that some editors put before the text.
    return path.read_text(encoding="utf-8-sig")


def encode(text, vocabulary):
    """Return the index of each character in the vocabulary, (len(text),)."""
    index = {char: i for i, char in enumerate(vocabulary)}
    return torch.tensor([index[char] for char in text])


def draw(chars, T, N=32):
    """Draw N pieces of a text, of T characters each, anywhere in it.

    Returns inputs and targets, both (N, T). The target is the next character.
    """
    starts = torch.randint(len(chars) - T, (N, 1))
    places = (starts + torch.arange(T)).to(chars.device)  # (N, T)
    return chars[places], chars[places + 1]


@torch.no_grad()
def bits_per_character(model, chars):
    """Return the mean of -log2(p), p being what the model gives to the character.

    Each window but the first begins half a window after the one before, and counts in
    its second half only: so half a window or more is known of what comes before.
    """
    model.eval()
    nats = 0.0
    counted = 0
    while counted < len(chars) - 1:
        end = min(max(counted + model.T // 2, model.T), len(chars) - 1)
        start = max(end - model.T, 0)
        logits = model(chars[None, start:end])[0]  # (T, V)

        # What the window before has counted does not count again.
        new = counted - start
        targets = chars[counted + 1 : end + 1]
        nats += cross_entropy(logits[new:], targets, reduction="sum").item()
        counted = end
    return nats / counted / math.log(2)


def train(model, chars, held_out, steps):
    """Train on chars, and leave the weights that were best on held_out in the model.

    Stops early when three measurements in a row were no better than the best before.
    Returns the bits per character of all measurements.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    # About ten measurements: while the rate is high, close ones go up and down.
    every = max(50, steps // 10)
    history = []
    best_weights = None

    for step in tqdm(range(1, steps + 1), disable=None):
        inputs, targets = draw(chars, model.T)  # (N, T)

        # Forward pass.
        model.train()
        logits = model(inputs)  # (N, T, V)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())

        # Backward pass. Unclipped, a large gradient would linger in Adam's averages.
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        schedule.step()

        if step == 1 or step % every == 0 or step == steps:
            bits = bits_per_character(model, held_out)
            tqdm.write(
                f"step {step:4d}  loss {loss.item():.4e}  bits per character {bits:.4f}"
            )

            # Early stopping: keep the best weights. End the training when three
            # measurements in a row have not improved on them.
            history.append(bits)
            if bits == min(history):
                best_weights = copy.deepcopy(model.state_dict())
            if min(history) not in history[-3:]:
                break

    model.load_state_dict(best_weights)
    return history


def lzma_bits_per_character(train_text, held_out_text):
    """Return how many bits lzma adds for a held-out character, knowing the rest."""
    known = len(lzma.compress(train_text.encode()))
    whole = len(lzma.compress((train_text + held_out_text).encode()))
    return 8 * (whole - known) / len(held_out_text)


@torch.no_grad()
def sample(model, vocabulary, length=300):
    """Return a text whose characters are drawn with the model's probabilities."""
    torch.manual_seed(0)
    model.eval()
    device = next(model.parameters()).device
    x = torch.tensor([[0]])  # as if the first character of the vocabulary came before
    for _ in range(length):
        logits = model(x[:, -model.T :].to(device))  # (1, T, V)
        probabilities = logits[:, -1].softmax(1).cpu()  # (1, V)
        x = torch.cat([x, probabilities.multinomial(1)], dim=1)
    return "".join(vocabulary[i] for i in x[0, 1:])


def show(text):
    """Print a text, with a question mark for what the terminal cannot show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def can_write(path):
    """Return whether a file can be put there: asked before the training, not after."""
    free = path.is_file() or not path.exists()
    return free and path.parent.is_dir() and os.access(path.parent, os.W_OK)


def save(checkpoint, path):
    """Write a file beside it, then rename that: if it fails, an older file is intact.

    The bytes are made in memory first: torch.save itself raises no OSError when the
    disk is full.
    """
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.write_bytes(stream.getvalue())
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--text", metavar="FILE", type=Path, help="a text in UTF-8")
    parser.add_argument("--save", metavar="FILE", type=Path, help="for the model")
    args = parser.parse_args()

    if args.save:
        args.save = args.save.resolve()  # a symbolic link stays, its target is written
        if not can_write(args.save):
            parser.error(f"argument --save: cannot write a file there: {args.save}")
    try:
        text = read_text(args.text)
    except (OSError, UnicodeError) as error:
        parser.error(f"argument --text: cannot read {args.text} as UTF-8: {error}")
    if len(text) < 1000:
        parser.error(f"argument --text: {args.text} has less than 1000 characters")

    # The last tenth is held out. All characters are known, those of this tenth, too.
    split = len(text) - min(len(text) // 10, 10_000)
    vocabulary = "".join(sorted(set(text)))
    chars = encode(text, vocabulary).to(args.device)

    torch.manual_seed(0)
    model = CharGPT(len(vocabulary)).to(args.device)
    history = train(model, chars[:split], chars[split:], args.steps)
    by_lzma = lzma_bits_per_character(text[:split], text[split:])
    print(f"best {min(history):.4f}  lzma {by_lzma:.4f}")

    if args.save:
        checkpoint = {"vocabulary": vocabulary, "weights": model.state_dict()}
        try:
            save(checkpoint, args.save)
        except OSError as error:
            parser.error(f"argument --save: cannot write {args.save}: {error}")

    show(sample(model, vocabulary))


if __name__ == "__main__":
    main()
