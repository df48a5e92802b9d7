"""Run a bidirectional GRU over sequences of different lengths: padded and packed.

A batch is one tensor, so short sequences are padded with zeros. The network reads the
zeros like any other input. Packed, each sequence gets what it gets alone. The table
counts for how many sequences that is so, and how many time steps a batch costs.
"""

import argparse

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence, unpack_sequence

# Rounding changes a result by about 1e-7 here, padding by 1e-4 or more.
TOLERANCE = 1e-5


def alone(gru, sequences):
    """Run one sequence after the other: no batch, and nothing to go wrong.

    Returns (output, h_n) for each sequence: the states of both directions at all steps,
    (length, 2 * H), and the last state of each direction, (2, H).
    """
    return [gru(sequence) for sequence in sequences]


def padded(gru, sequences):
    """Run all sequences as one tensor, filled up with zeros, and return the same."""
    batch = pad_sequence(sequences)  # (T, N, D_in)
    output, h_n = gru(batch)  # (T, N, 2 * H) and (2, N, H)

    # What comes out for the padding is left out again.
    results = []
    for i, sequence in enumerate(sequences):
        results.append((output[: len(sequence), i], h_n[:, i]))
    return results


def packed(gru, sequences):
    """Run all sequences without padding, and return the same."""
    batch = pack_sequence(sequences, enforce_sorted=False)
    output, h_n = gru(batch)  # a PackedSequence and (2, N, H)
    return list(zip(unpack_sequence(output), h_n.unbind(1)))


def parts(result):
    """Return {name: part} of the (output, h_n) of one sequence."""
    output, h_n = result
    H = h_n.shape[1]
    return {
        "forward outputs": output[:, :H],
        "forward h_n": h_n[0],
        "backward outputs": output[:, H:],
        "backward h_n": h_n[1],
    }


def count_same(name, results, expected):
    """Return for how many sequences a part is what it should be."""
    count = 0
    for one, other in zip(results, expected):
        error = (parts(one)[name] - parts(other)[name]).abs().max()
        count += int(error < TOLERANCE)
    return count


def draw(results, expected):
    """Return a Figure: the error of each sequence's outputs at each of its steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), dpi=240, layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    for axes, direction in zip(both, ("forward", "backward")):
        name = f"{direction} outputs"
        errors = []
        for one, other in zip(results, expected):
            difference = parts(one)[name] - parts(other)[name]  # (length, H)
            errors.append(difference.abs().amax(1))  # (length,)

        # Padded with nan, which is not drawn, they become a picture of N rows.
        errors = pad_sequence(errors, batch_first=True, padding_value=torch.nan)
        errors = errors.clamp(min=TOLERANCE).numpy(force=True)  # (N, T)
        image = axes.imshow(errors, cmap="Reds", norm="log", vmin=TOLERANCE, vmax=1)
        axes.set(title=direction, xlabel="time step", facecolor="lightgrey")
    both[0].set(ylabel="sequence", yticks=range(0, len(errors), 5))
    label = "error of the padded outputs"
    figure.colorbar(image, ax=both, location="bottom", label=label)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the errors of padding")
    args = parser.parse_args()

    # On a GPU, cuDNN may round the factors of its products to 10 bits. Not here.
    torch.backends.cudnn.allow_tf32 = False

    # N is batch size; D_in is input dimension; H is hidden dimension.
    N, D_in, H = 16, 8, 16
    lengths = range(1, N + 1)
    torch.manual_seed(0)
    sequences = [torch.randn(length, D_in).to(args.device) for length in lengths]
    gru = nn.GRU(D_in, H, bidirectional=True).to(args.device).requires_grad_(False)

    expected = alone(gru, sequences)
    from_padded = padded(gru, sequences)
    from_packed = packed(gru, sequences)

    print(f"Of {N} sequences, these get what they get alone:")
    print("                  padded  packed")
    for name in parts(expected[0]):
        same_padded = count_same(name, from_padded, expected)
        same_packed = count_same(name, from_packed, expected)
        print(f"{name:16}  {same_padded:6}  {same_packed:6}")
    print(f"time steps        {N * max(lengths):6}  {sum(lengths):6}")

    if args.plot:
        try:
            draw(from_padded, expected).savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
