"""Show what each head of attention_by_hand.py looks at, once it has been trained.

Attention has a row for each step that looks and a column for each step that is looked
at. The script prints how much of it goes one, two and three steps back, on average.
"""

import argparse
import runpy
from pathlib import Path
from unittest import mock

SCRIPT = Path(__file__).with_name("attention_by_hand.py")


def trained_attention():
    """Train, and return the attention of the last step of training, (heads, T, T).

    It is averaged over the samples, which hardly differ: to find a step by its
    position, a head need not know the numbers.
    """
    with mock.patch("sys.argv", [str(SCRIPT)]):
        variables = runpy.run_path(str(SCRIPT))
    return variables["attention"].detach().mean(dim=0)


def draw(attention):
    """Return a figure of the attention of all heads, (heads, T, T), side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), dpi=200, layout="constrained")
    for head, axes in enumerate(figure.subplots(1, len(attention), sharey=True)):
        image = axes.imshow(attention[head].numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set(title=f"head {head + 1}", xlabel="step looked at")
        axes.set(xticks=range(0, 12, 3), yticks=range(0, 12, 3))
        if head == 0:
            axes.set_ylabel("step that looks")
    figure.colorbar(image, ax=figure.axes, label="attention", shrink=0.8)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", metavar="FILE.png", help="draw the attention")
    args = parser.parse_args()

    attention = trained_attention()
    for head, rows in enumerate(attention, start=1):
        # The k-th diagonal below the main one holds what is k steps back. The first
        # three steps have no target, so they have not learned where to look.
        shares = [rows[3:].diagonal(3 - back).mean() for back in (1, 2, 3)]
        print(f"head {head}", end="")
        for back, share in enumerate(shares, start=1):
            print(f"  {back} back {share:.2f}", end="")
        print()

    if args.plot:
        try:
            draw(attention).savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
