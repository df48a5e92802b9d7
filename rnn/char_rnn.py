"""Learn a text character by character with nn.RNN, nn.GRU or nn.LSTM, then write more.

The state goes on from piece to piece of the text, but without its graph. Text held out
of training shows how many bits a character takes; when they get more, training stops
and the best weights are kept. Without --text, the text is Python's documentation.
"""

import argparse
import lzma
import math
import os
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tqdm import tqdm


class CharRNN(torch.nn.Module):
    """Predicts the next of V characters: maps (T, N) numbers to (T, N, V) logits."""

    def __init__(self, cell, V, E=64, H=128):
        super().__init__()
        self.embedding = torch.nn.Embedding(V, E)
        self.rnn = getattr(torch.nn, cell.upper())(E, H)
        self.dropout = torch.nn.Dropout(0.1)
        self.linear = torch.nn.Linear(H, V)

    def forward(self, x, state=None):
        h, state = self.rnn(self.embedding(x), state)  # (T, N, H)
        return self.linear(self.dropout(h)), state


@torch.no_grad()
def sample(model, vocabulary, device):
    """Return 300 characters, each drawn with the probability that the model gives."""
    torch.manual_seed(0)
    x, state, text = torch.zeros(1, 1, dtype=torch.long), None, ""
    while len(text) < 300:
        y_pred, state = model.eval()(x.to(device), state)  # (1, 1, V)
        x = y_pred[0].softmax(1).cpu().multinomial(1)  # (1, 1)
        text += vocabulary[x.item()]
    return text


devices = [d for d in ("cpu", "cuda", "mps", "xpu") if getattr(torch, d).is_available()]
parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--steps", type=int, default=500, help="default: %(default)s")
parser.add_argument("--device", choices=devices, default="cpu", help="default: cpu")
parser.add_argument("--cell", choices=["rnn", "gru", "lstm"], default="lstm")
parser.add_argument("--text", metavar="FILE", help="learn this text, in UTF-8")
parser.add_argument("--save", metavar="FILE", type=Path, help="put the model here")
parser.add_argument("--load", metavar="FILE", help="no training: write with this model")
args = parser.parse_args()
if args.steps < 1:
    parser.error("argument --steps: must be 1 or more")
if args.save and (args.save.is_dir() or not os.access(f"{args.save.parent}/", os.W_OK)):
    parser.error(f"argument --save: cannot write a file there: '{args.save}'")

if args.load:
    try:
        saved = torch.load(args.load, args.device, weights_only=True, mmap=True)
        model = CharRNN(saved["cell"], len(saved["vocabulary"])).to(args.device)
        model.load_state_dict(saved["weights"])
        print(sample(model, saved["vocabulary"], args.device))
    except Exception as error:  # noqa: BLE001, as a foreign file can raise anything
        parser.error(f"argument --load: not from --save: {args.load!r}: {error!r:.50}")
    parser.exit()

try:
    text = "".join(topics[name] for name in sorted(topics))[:100_000]
    text = Path(args.text).read_text(encoding="utf-8") if args.text else text
except (OSError, UnicodeError) as error:
    parser.error(f"argument --text: takes a text in UTF-8, not {args.text!r}: {error}")
if len(text) < 1000:
    parser.error("argument --text: must have 1000 characters or more")

# The last tenth is held out. To compare: what lzma needs for it, knowing the rest.
split = len(text) - min(len(text) // 10, 10_000)
whole, known = (len(lzma.compress(part.encode())) for part in (text, text[:split]))
vocabulary = "".join(sorted(set(text)))
chars = torch.tensor([vocabulary.index(char) for char in text], device=args.device)
held_out = chars[split:]

# The columns are stretches of the text, cut into pieces; y is one character ahead of x.
T, N, L = 64, 32, (split - 1) // 32  # time steps, columns and their length
x, y = (part[: N * L].view(N, L).T.split(T) for part in (chars, chars[1:]))
torch.manual_seed(0)
model = CharRNN(args.cell, len(vocabulary)).to(args.device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
loss_fn = torch.nn.CrossEntropyLoss()
history, state = [], None
for t in tqdm(range(1, args.steps + 1), disable=None):
    # Forward pass: go on from the state that the last piece left. The graph ends here.
    y_pred, state = model.train()(x[t % len(x)], state)  # (T, N, V)
    loss = loss_fn(y_pred.flatten(0, 1), y[t % len(x)].flatten())  # ()
    state = tuple(s.detach() for s in state) if args.cell == "lstm" else state.detach()
    # Backward pass through this piece. Clipping keeps a steep place from a wild step.
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()
    if t == 1 or t % 50 == 0 or t == args.steps:
        with torch.no_grad():
            y_pred, _ = model.eval()(held_out[:-1, None])  # (L, 1, V)
            bits = loss_fn(y_pred[:, 0], held_out[1:]).item() / math.log(2)
        tqdm.write(f"step {t:4d}  loss {loss:.4e}  bits per character {bits:.4f}")
        # Keep the best weights. Stop if they are not among the last three measured.
        history.append(bits)
        if bits == min(history):
            best = {name: w.clone() for name, w in model.state_dict().items()}
        if min(history) not in history[-3:]:
            break
print(f"best {min(history):.4f}  lzma {8 * (whole - known) / (len(text) - split):.4f}")
model.load_state_dict(best)
if args.save:
    saved = {"cell": args.cell, "vocabulary": vocabulary, "weights": best}
    torch.save(saved, f"{args.save}.part")
    os.replace(f"{args.save}.part", args.save)  # at once: never half a file
print(sample(model, vocabulary, args.device))
