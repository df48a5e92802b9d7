"""Train a character-level language model with nn.RNN, nn.GRU or nn.LSTM.

At every character of a text the model predicts the next one. The hidden state goes on
from piece to piece of the text, but without its graph: truncated backpropagation
through time. A held-out text tells how many bits a character takes, and when to stop
(early stopping). Without --text, the text is Python's own documentation.
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
from torch.nn.functional import cross_entropy
from tqdm import tqdm

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class CharRNN(nn.Module):
    """Predicts the next character of N texts, at each of T time steps.

    V is the size of the vocabulary, E of the embedding, H of the hidden state. Takes
    indices of characters, (T, N), and the state to start from, zeros if left out.
    Returns logits, (T, N, V), and the last state: (1, N, H), or two of these for LSTM.
    """

    def __init__(self, cell, V, E=64, H=128):
        super().__init__()
        self.embedding = nn.Embedding(V, E)
        self.rnn = CELLS[cell](E, H)
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(H, V)

    def forward(self, x, state=None):
        embedded = self.embedding(x)  # (T, N, E)
        hs, state = self.rnn(embedded, state)  # (T, N, H)
        return self.linear(self.dropout(hs)), state


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


def cut(chars, T=64, N=32):
    """Cut a text into N columns, which are read side by side, in pieces of T steps.

    Returns [(inputs, targets), ...], both (T, N), or shorter in the last piece. Each
    column continues in the next piece. The target is the next character.
    """
    length = (len(chars) - 1) // N
    inputs = chars[: N * length].view(N, length).T
    targets = chars[1:][: N * length].view(N, length).T
    return list(zip(inputs.split(T), targets.split(T)))


def detach(state):
    """Return the state without its graph. An LSTM has two tensors, h and c."""
    if isinstance(state, tuple):
        return tuple(part.detach() for part in state)
    return state.detach()


@torch.no_grad()
def bits_per_character(model, chars):
    """Return the mean of -log2(p), p being what the model gives to the character."""
    model.eval()
    logits, _ = model(chars[:-1, None])  # (len(chars) - 1, 1, V)
    nats = cross_entropy(logits[:, 0], chars[1:])
    return nats.item() / math.log(2)


def train(model, chars, held_out, steps):
    """Train on chars, and leave the weights that were best on held_out in the model.

    Stops early when three measurements in a row were no better than the best before.
    Returns the bits per character of all measurements.
    """
    pieces = cut(chars)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    best_weights = None

    for step in tqdm(range(1, steps + 1), disable=None):
        # The state goes on from the piece before, unless the text begins anew.
        position = (step - 1) % len(pieces)
        inputs, targets = pieces[position]  # (T, N)
        if position == 0:
            state = None

        # Forward pass.
        model.train()
        logits, state = model(inputs, state)  # (T, N, V)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())

        # Truncation: the next piece gets the numbers of the state, not its graph.
        state = detach(state)

        # Backward pass through this piece. Clipping prevents exploding gradients.
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()

        if step == 1 or step % 50 == 0 or step == steps:
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
    state = None
    text = ""
    for _ in range(length):
        logits, state = model(x.to(device), state)  # (1, 1, V)
        probabilities = logits[0].softmax(1).cpu()  # (1, V)
        x = probabilities.multinomial(1)  # (1, 1)
        text += vocabulary[x.item()]
    return text


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
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--cell", choices=CELLS, default="lstm")
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
    model = CharRNN(args.cell, len(vocabulary)).to(args.device)
    history = train(model, chars[:split], chars[split:], args.steps)
    by_lzma = lzma_bits_per_character(text[:split], text[split:])
    print(f"best {min(history):.4f}  lzma {by_lzma:.4f}")

    if args.save:
        checkpoint = {
            "cell": args.cell,
            "vocabulary": vocabulary,
            "weights": model.state_dict(),
        }
        try:
            save(checkpoint, args.save)
        except OSError as error:
            parser.error(f"argument --save: cannot write {args.save}: {error}")

    show(sample(model, vocabulary))


if __name__ == "__main__":
    main()
