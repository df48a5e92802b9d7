"""Run the scripts of the ladder and set their losses side by side.

Those of family A lie on one another, whichever library and whichever way of computing
the gradient is behind them. Those of family B start lower, from smaller weights. What
is shown here is what each script prints.
"""

import argparse
import contextlib
import io
import re
import runpy
import tempfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
OTHERS = "tf_|compile|ddp|no_sync|attention|accumulation|checkpointed|kernel|cpp|triton"


def ladder():
    """Return the scripts of families A and B in the tables of the ladder in README.md.

    Without those that need TensorFlow, a compiler, or several processes, and those that
    compute what autograd does in other pieces or by another kernel.
    """
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\S+\.py)\]", page, re.MULTILINE)
    return [row for row in rows if not re.search(OTHERS, row)]


def losses_of(script):
    """Run a script as if from the command line; return {step: loss} for all its steps.

    It is run in this process, as importing torch takes longer than 500 steps.
    """
    text = (ROOT / script).read_text(encoding="utf-8")
    every_step = text.replace("if t == 1 or t % 50 == 0:", "if True:")
    output = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.py")
        copy.write_text(every_step, encoding="utf-8")
        with contextlib.redirect_stdout(output), mock.patch("sys.argv", [script]):
            runpy.run_path(str(copy), run_name="__main__")

    # A line is "step   50  loss 1.0281e+04".
    lines = re.findall(r"^step +(\d+)  loss (\S+)", output.getvalue(), re.MULTILINE)
    return {int(step): float(loss) for step, loss in lines}


def draw(curves):
    """Return a figure of {script: {step: loss}}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), dpi=200, layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
    family_a = [script for script, curve in curves.items() if curve[1] > 1e6]
    for script, curve in curves.items():
        # Wide lines first: the edges of those below remain visible.
        width = 1.5
        if script in family_a:
            width = 2 * (len(family_a) - family_a.index(script))
        label = Path(script).stem.removeprefix("two_layer_net_")
        axes.plot(*zip(*curve.items()), linewidth=width, label=label)
    figure.legend(loc="outside right upper")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="draw the losses")
    args = parser.parse_args()

    curves = {}
    for script in ladder():
        curves[script] = losses_of(script)
        first, later = curves[script][1], curves[script][200]
        print(f"{script:42}loss {first:.4e}  step 200 loss {later:.4e}")

    if args.plot:
        try:
            draw(curves).savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
