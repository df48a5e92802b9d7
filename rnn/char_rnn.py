"""Learn a text character by character with nn.RNN, nn.GRU or nn.LSTM, then write more.

The state goes on from piece to piece of the text, but without its graph. Text held out
of training shows how many bits a character takes; when they get more, training stops
and the best weights are kept. Without --text, the text is Python's documentation.
"""

import argparse
import contextlib
import io
import lzma
import math
import os
import sys
import zipfile
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import nn
from tqdm import tqdm


class CharRNN(nn.Module):
    """Predicts the next of V characters: maps (T, N) numbers to (T, N, V) logits."""

    def __init__(self, cell, V, E=64, H=128):
        super().__init__()
        self.embedding = nn.Embedding(V, E)
        self.rnn = getattr(nn, cell.upper())(E, H)
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(H, V)

    def forward(self, x, state=None):
        h, state = self.rnn(self.embedding(x), state)  # (T, N, H)
        return self.linear(self.dropout(h)), state


@torch.no_grad()
def sample(model, vocabulary, device):
    """Return 300 characters, each drawn with the probability that the model gives."""
    torch.manual_seed(0)
    model.eval()
    x = torch.zeros(1, 1, dtype=torch.long)
    state = None
    text = ""
    while len(text) < 300:
        y_pred, state = model(x.to(device), state)  # (1, 1, V)
        x = y_pred[0].softmax(1).cpu().multinomial(1)  # (1, 1)
        text += vocabulary[x.item()]
    return text


def show(text):
    """Print a text, with a question mark for what the terminal has no character for."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def save(saved, file):
    """Let the file hold this. If that fails, it holds what it held before."""
    stream = io.BytesIO()
    torch.save(saved, stream)  # in memory: of a full disk, only Python says that it is
    unfinished = f"{file}.unfinished"
    try:
        Path(unfinished).write_bytes(stream.getvalue())
        os.replace(unfinished, file)  # at once: never half a file
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        parser.error(f"argument --save: cannot write {file!r}: {error}")


def load(file, device):
    """Return a model and its vocabulary. If it is another file, anything is raised."""
    if zipfile.ZipFile(file).testzip() is not None:
        raise ValueError("damaged")  # torch.load does not look at the checksums
    saved = torch.load(file, map_location=device, weights_only=True)
    vocabulary = saved["vocabulary"]
    model = CharRNN(saved["cell"], len(vocabulary)).to(device)
    model.load_state_dict(saved["weights"])
    if not all(w.isfinite().all() for w in model.parameters()):
        raise ValueError("weights that are no numbers")
    return model, vocabulary


devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=500, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--cell", choices=["rnn", "gru", "lstm"], default="lstm")
parser.add_argument("--text", metavar="FILE", help="learn this text, in UTF-8")
parser.add_argument("--save", metavar="FILE", help="put the model here")
parser.add_argument("--load", metavar="FILE", help="no training: write with this model")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")

if args.save:
    place = os.path.realpath(args.save)  # so that a link stays a link
    no_file = os.path.exists(args.save) and not os.path.isfile(args.save)
    if no_file or not os.access(f"{os.path.dirname(place)}/", os.W_OK):
        parser.error(f"argument --save: cannot write a file there: {args.save!r}")

if args.load:
    try:
        model, vocabulary = load(args.load, args.device)
    except Exception as error:  # noqa: BLE001, as a foreign file can raise anything
        parser.error(f"argument --load: not from --save: {args.load!r}: {error!r:.50}")
    show(sample(model, vocabulary, args.device))
    parser.exit()

text = "".join(topics[name] for name in sorted(topics))[:100_000]
if args.text:
    try:
        text = Path(args.text).read_text(encoding="utf-8-sig")  # with a mark or without
    except (OSError, UnicodeError) as error:
        parser.error(f"argument --text: takes UTF-8, not {args.text!r}: {error}")
if len(text) < 1000:
    parser.error("argument --text: must have 1000 characters or more")

# The last tenth is held out. To compare: what lzma needs for it, knowing the rest.
split = len(text) - min(len(text) // 10, 10_000)
whole = len(lzma.compress(text.encode()))
known = len(lzma.compress(text[:split].encode()))

vocabulary = "".join(sorted(set(text)))
chars = torch.tensor([vocabulary.index(char) for char in text], device=args.device)
held_out = chars[split:]

# The columns are stretches of the text, cut into pieces; y is one character ahead of x.
T = 64  # time steps of a piece
N = 32  # columns
L = (split - 1) // N  # length of a column
x = chars[: N * L].view(N, L).T.split(T)
y = chars[1:][: N * L].view(N, L).T.split(T)

torch.manual_seed(0)
model = CharRNN(args.cell, len(vocabulary)).to(args.device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
loss_fn = nn.CrossEntropyLoss()

history = []
state = None
for t in tqdm(range(1, args.steps + 1), disable=None):
    # Forward pass: go on from the state that the last piece left.
    model.train()
    piece = t % len(x)
    y_pred, state = model(x[piece], state)  # (T, N, V)
    loss = loss_fn(y_pred.flatten(0, 1), y[piece].flatten())

    # The graph ends here: the next piece gets the state as numbers. LSTM has two.
    if args.cell == "lstm":
        state = tuple(s.detach() for s in state)
    else:
        state = state.detach()

    # Backward pass through this piece. Clipping keeps a steep place from a wild step.
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()

    if t == 1 or t % 50 == 0 or t == args.steps:
        model.eval()
        with torch.no_grad():
            y_pred, _ = model(held_out[:-1, None])  # (held out, 1, V)
            bits = loss_fn(y_pred[:, 0], held_out[1:]).item() / math.log(2)
        tqdm.write(f"step {t:4d}  loss {loss:.4e}  bits per character {bits:.4f}")

        # Keep the best weights. Stop if they are not among the last three measured.
        history.append(bits)
        if bits == min(history):
            best = {name: w.clone() for name, w in model.state_dict().items()}
        if min(history) not in history[-3:]:
            break

by_lzma = 8 * (whole - known) / (len(text) - split)
print(f"best {min(history):.4f}  lzma {by_lzma:.4f}")

model.load_state_dict(best)
if args.save:
    save({"cell": args.cell, "vocabulary": vocabulary, "weights": best}, place)
show(sample(model, vocabulary, args.device))
