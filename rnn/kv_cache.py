"""Generate text with the GPT of char_gpt.py, with and without a KV cache.

Attention needs the keys and values of all earlier characters. They do not change when
the text goes on, so they can be kept: each step then computes one character, not all.
The text is the same, and the time per character hardly grows with the length. Without
--model, the weights are random, D is 96 and the window has 128 characters: random
weights change neither the times nor whether the texts are the same.
"""

import argparse
import time
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


class Attention(nn.Module):
    """Causal self-attention with several heads: (N, T, D) to (N, T, D).

    Takes the keys and values of the P positions before these T, or None, and returns
    those of all P + T.
    """

    def __init__(self, D, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(D, 3 * D)
        self.linear = nn.Linear(D, D)

    def split(self, h):
        """Give each head its part of (N, T, D): return (N, heads, T, D / heads)."""
        return h.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x, past=None):
        query, key, value = map(self.split, self.qkv(x).chunk(3, dim=2))
        if past is not None:
            key = torch.cat([past[0], key], dim=2)  # (N, heads, P + T, D / heads)
            value = torch.cat([past[1], value], dim=2)

        # Each of the T positions sees the P before them, those of the T before itself,
        # and itself. For a single one, this is True everywhere.
        T, total = query.shape[2], key.shape[2]
        visible = torch.ones(T, total, dtype=torch.bool, device=x.device)
        visible = visible.tril(diagonal=total - T)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.linear(mixed.transpose(1, 2).flatten(start_dim=2)), (key, value)


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

    def forward(self, x, past=None):
        attended, past = self.attention(self.norm1(x), past)
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.norm2(x))), past


class CharGPT(nn.Module):
    """The network of char_gpt.py, which can go on from where it was.

    Takes indices of characters, (N, T) or shorter, and the cache of those before them,
    none if left out. Returns logits, (N, T, V), and the cache with the new ones: for
    each block, its keys and its values.
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

    def forward(self, x, cache=None):
        # The positions go on where the cache ends.
        first = cache[0][0].shape[2] if cache else 0
        positions = torch.arange(first, first + x.shape[1], device=x.device)  # (T,)
        h = self.embedding(x) + self.position(positions)  # (N, T, D)
        h = self.dropout(h)

        # Each block has its own keys and values.
        new_cache = []
        for block, past in zip(self.blocks, cache or [None] * len(self.blocks)):
            h, past = block(h, past)
            new_cache.append(past)
        return self.linear(self.norm(h)), new_cache


def load(path):
    """Return the model that a file holds.

    Raises one exception or another if char_gpt.py has not saved it, or it is damaged.
    """
    # torch.load does not compare the checksums in the file; zipfile does.
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError("damaged")

    # weights_only: no code from the file is run. map_location: it may be from a GPU.
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    weights = checkpoint["weights"]
    T, D = weights["position.weight"].shape
    model = CharGPT(len(checkpoint["vocabulary"]), T, D)
    model.load_state_dict(weights)
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise ValueError("weights that are not finite")
    return model


@torch.no_grad()
def generate(model, length, use_cache):
    """Draw a text from the model, character by character, as char_gpt.py does.

    Returns the characters, (length,), the logits that each was drawn from, (length, V),
    and the milliseconds that each took, (length,).
    """
    torch.manual_seed(0)
    model.eval()
    x = torch.tensor([[0]])  # as if the first character of the vocabulary came before
    start = 0  # of the window
    cache = None
    all_logits = []
    times = []
    for _ in range(length):
        begin = time.perf_counter()

        # The window is full. Keys and values know their old positions, so they cannot
        # move along with it: begin a new window with the last half of this one.
        if x.shape[1] - start > model.T:
            start = x.shape[1] - model.T // 2
            cache = None

        # With a cache, only the last character is new. Without, all are computed again.
        if use_cache and cache is not None:
            logits, cache = model(x[:, -1:], cache)  # (1, 1, V)
        else:
            logits, cache = model(x[:, start:])  # (1, T, V)

        probabilities = logits[:, -1].softmax(1)  # (1, V)
        x = torch.cat([x, probabilities.multinomial(1)], dim=1)
        all_logits.append(logits[0, -1])
        times.append(1000 * (time.perf_counter() - begin))
    return x[0, 1:], torch.stack(all_logits), torch.tensor(times)


def measure(model, length, use_cache):
    """Do the same three times, and return the shortest time of each character.

    Other programs that run on the machine make single times longer, never shorter.
    """
    runs = [generate(model, length, use_cache) for _ in range(3)]
    text, logits, _ = runs[0]
    times = torch.stack([times for _, _, times in runs]).amin(dim=0)  # (length,)
    return text, logits, times


def medians(times, size):
    """Return the medians of the first size times, of the next, and so on."""
    return [part.median().item() for part in times.split(size)]


def draw(slow, fast, T):
    """Return a figure of the milliseconds that each character took."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(slow, ".", color="tab:orange", label="without cache")
    axes.plot(fast, ".", color="tab:blue", label="with cache")
    axes.axvline(T, color="grey", linestyle="dotted", label="window full")
    axes.set(xlabel="characters generated", ylabel="milliseconds per character")
    # One that was disturbed may be far above the others.
    axes.set_ylim(0, 2 * max(medians(slow, T // 4)))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", metavar="FILE", type=Path, help="from char_gpt.py")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the times")
    args = parser.parse_args()

    torch.manual_seed(0)
    model = CharGPT(V=100, T=128, D=96)

    # Only the loading is tried: what fails afterwards is no fault of the file.
    if args.model:
        try:
            model = load(args.model)
        except FileNotFoundError:
            parser.error(f"there is no file {args.model}")
        except Exception as error:  # noqa: BLE001, as a foreign file can raise anything
            parser.error(
                f"{args.model} is not a model that char_gpt.py has saved, "
                f"or it is damaged ({type(error).__name__})"
            )

    # One character is too little work for several threads. In float64, the logits are
    # so exact that rounding will not draw another character.
    torch.set_num_threads(1)
    model.double()

    # One and a half windows, to show what happens when one is full.
    length = model.T + model.T // 2
    text, logits, slow = measure(model, length, use_cache=False)
    text_cached, logits_cached, fast = measure(model, length, use_cache=True)
    difference = (logits - logits_cached).abs().max().item()
    print(f"same text {torch.equal(text, text_cached)}  logits within {difference:.1e}")

    size = model.T // 4
    for i, both in enumerate(zip(medians(slow, size), medians(fast, size))):
        print(f"characters {i * size + 1:3d} to {(i + 1) * size:3d}", end="")
        print("  without cache {:5.2f} ms  with cache {:5.2f} ms".format(*both))

    _, cache = model(torch.zeros(1, model.T, dtype=torch.long))
    size_of_cache = sum(each.nbytes for past in cache for each in past)
    print(f"cache of {model.T} characters: {size_of_cache:,} bytes")

    if args.plot:
        try:
            draw(slow, fast, model.T).savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
