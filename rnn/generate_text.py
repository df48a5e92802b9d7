"""Generate text with a model that char_rnn.py has saved.

The model gives each character a probability of being the next one. One is drawn, and is
the next input. Temperature divides the logits: below 1 the text becomes more regular,
above 1 more random. The text begins with a prompt, which the model reads first.
"""

import argparse
import sys
import zipfile
from pathlib import Path

import torch
from torch import nn

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class CharRNN(nn.Module):
    """The network of char_rnn.py. A file holds its weights, and not its code.

    Takes indices of characters, (T, N), and the state to start from, zeros if left out.
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


def load(path):
    """Return the model and the vocabulary that a file holds.

    Raises one exception or another if char_rnn.py has not saved it, or it is damaged.
    """
    # torch.load does not compare the checksums in the file; zipfile does.
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError("damaged")

    # weights_only: no code from the file is run. map_location: it may be from a GPU.
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    vocabulary = checkpoint["vocabulary"]
    model = CharRNN(checkpoint["cell"], len(vocabulary))
    model.load_state_dict(checkpoint["weights"])
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise ValueError("weights that are not finite")
    return model, vocabulary


@torch.no_grad()
def generate(model, vocabulary, prompt, length=300, temperature=1.0):
    """Return so many characters that come after the prompt, drawn one by one."""
    model.eval()
    device = next(model.parameters()).device
    indices = [vocabulary.index(char) for char in prompt]
    x = torch.tensor(indices)[:, None]  # (T, 1)
    state = None
    text = ""
    for _ in range(length):
        logits, state = model(x.to(device), state)  # (T, 1, V)
        probabilities = (logits[-1] / temperature).softmax(1)  # (1, V)

        # All that was read is in the state, so the next input is one character.
        x = probabilities.cpu().multinomial(1)  # (1, 1)
        text += vocabulary[x.item()]
    return text


def show(text):
    """Print a text, with a question mark for what the terminal cannot show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", metavar="FILE", type=Path, help="from char_rnn.py")
    parser.add_argument("--prompt", default="", help="the text to go on from")
    parser.add_argument("--length", type=int, default=300)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    args = parser.parse_args()
    if args.temperature <= 0:
        parser.error("argument --temperature: must be above 0")

    # Only the loading is tried: what fails afterwards is no fault of the file.
    try:
        model, vocabulary = load(args.model)
    except FileNotFoundError:
        parser.error(f"there is no file {args.model}")
    except Exception as error:  # noqa: BLE001, as a foreign file can raise anything
        parser.error(
            f"{args.model} is not a model that char_rnn.py has saved, "
            f"or it is damaged ({type(error).__name__})"
        )

    unknown = "".join(sorted(set(args.prompt) - set(vocabulary)))
    if unknown:
        parser.error(f"argument --prompt: {args.model} does not know {unknown!r}")

    model.to(args.device)
    torch.manual_seed(args.seed)
    prompt = args.prompt or vocabulary[0]  # a model needs some first character
    text = generate(model, vocabulary, prompt, args.length, args.temperature)
    show(args.prompt + text)


if __name__ == "__main__":
    main()
