"""Draw where one head of the GPT of char_gpt.py looks while it reads a line of text.

Attention has a row for each character that looks and a column for each that is looked
at. For every head, the script prints how much of its attention goes one and two
characters back, and which character gets most, on average over the rows. Without
--model, the weights are random, and the attention is spread over all that may be seen.
"""

import argparse
import math
import runpy
import string
import zipfile
from pathlib import Path

import torch

SCRIPT = Path(__file__).with_name("char_gpt.py")
LINE = 'the name "self" is not "None" here'


def load(path, CharGPT):
    """Return the model and the vocabulary that a file holds.

    Raises one exception or another if char_gpt.py has not saved it, or it is damaged.
    """
    # torch.load does not compare the checksums in the file; zipfile does.
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError("damaged")

    # weights_only: no code from the file is run. map_location: it may be from a GPU.
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    vocabulary = checkpoint["vocabulary"]
    model = CharGPT(len(vocabulary))
    model.load_state_dict(checkpoint["weights"])
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise ValueError("weights that are not finite")
    return model, vocabulary


@torch.no_grad()
def attention_of(model, x):
    """Return the attention of all heads in all blocks, (blocks, heads, T, T).

    x is one text, (T,). scaled_dot_product_attention returns only what it makes of the
    values, so queries and keys are compared here once more.
    """
    model.eval()
    T = len(x)
    future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)
    h = model.embedding(x[None]) + model.position(torch.arange(T))  # (1, T, D)

    found = []
    for block in model.blocks:
        layer = block.attention
        query, key, _ = layer.qkv(block.norm1(h)).chunk(3, dim=2)
        query, key = layer.split(query), layer.split(key)  # (1, heads, T, D / heads)
        scores = query @ key.mT / math.sqrt(query.shape[-1])  # (1, heads, T, T)
        scores = scores.masked_fill(future, -math.inf)
        found.append(scores.softmax(dim=-1)[0])
        h = block(h)
    return torch.stack(found)


def favourite(attention, line):
    """Return the character that gets most of a head's attention, and its share."""
    by_place = attention.mean(dim=0)  # (T,)
    totals = dict.fromkeys(line, 0.0)
    for char, share in zip(line, by_place.tolist()):
        totals[char] += share
    return max(totals.items(), key=lambda item: item[1])


def draw(attention, line):
    """Return a figure of the attention of one head, (T, T), to a line of text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5.4), dpi=200, layout="constrained")
    axes = figure.add_subplot(xlabel="character looked at")
    axes.set_ylabel("character that looks")
    image = axes.imshow(attention.numpy(), cmap="Blues", vmin=0, vmax=1)
    chars = list(line.replace(" ", "\N{MIDDLE DOT}"))
    axes.set_xticks(range(len(line)), chars, family="monospace")
    axes.set_yticks(range(len(line)), chars, family="monospace")
    axes.tick_params(length=0)
    figure.colorbar(image, label="attention", aspect=40, pad=0.02)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", metavar="FILE", type=Path, help="from char_gpt.py")
    parser.add_argument("--line", default=LINE, help="the text to be read")
    parser.add_argument("--block", type=int, default=2, choices=[1, 2, 3])
    parser.add_argument("--head", type=int, default=2, choices=[1, 2, 3, 4])
    parser.add_argument("--plot", metavar="FILE.png", help="draw this head's attention")
    args = parser.parse_args()

    # This does not call main(), since the script's __name__ is not "__main__".
    char_gpt = runpy.run_path(str(SCRIPT))
    torch.manual_seed(0)
    vocabulary = string.printable
    model = char_gpt["CharGPT"](len(vocabulary))

    # Only the loading is tried: what fails afterwards is no fault of the file.
    if args.model:
        try:
            model, vocabulary = load(args.model, char_gpt["CharGPT"])
        except FileNotFoundError:
            parser.error(f"there is no file {args.model}")
        except Exception as error:  # noqa: BLE001, as a foreign file can raise anything
            parser.error(
                f"{args.model} is not a model that char_gpt.py has saved, "
                f"or it is damaged ({type(error).__name__})"
            )

    unknown = "".join(sorted(set(args.line) - set(vocabulary)))
    if unknown:
        parser.error(f"argument --line: the model does not know {unknown!r}")
    if not 3 <= len(args.line) <= model.T:
        parser.error(f"argument --line: must have 3 to {model.T} characters")

    attention = attention_of(model, char_gpt["encode"](args.line, vocabulary))
    for block, heads in enumerate(attention, start=1):
        for head, rows in enumerate(heads, start=1):
            one, two = rows.diagonal(-1).mean(), rows.diagonal(-2).mean()
            char, share = favourite(rows, args.line)
            print(
                f"block {block} head {head}  1 back {one:.2f}  2 back {two:.2f}", end=""
            )
            print(f"  most on {char!a} {share:.2f}")

    if args.plot:
        chosen = attention[args.block - 1, args.head - 1]
        try:
            draw(chosen, args.line).savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
