"""Run the scripts of the ladder and set their losses side by side.

Those of family A lie on one another, whichever library and whichever way of computing
the gradient is behind them. Those of family B start lower, from smaller weights. What
is read here is what each script prints.
"""

import argparse
import contextlib
import io
import json
import os
import re
import runpy
import sys
from pathlib import Path
from unittest import mock

parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("--plot", metavar="FILE.png", type=Path, help="draw the losses")
args = parser.parse_args()
if args.plot:
    writable = os.access(f"{args.plot.parent}/", os.W_OK)
    if args.plot.suffix != ".png" or args.plot.is_dir() or not writable:
        parser.error("argument --plot: must be a .png in a folder that takes files")

# All that need no TensorFlow, no compiler and no torchrun: family A, then family B.
ladder = [
    "tensor/two_layer_net_numpy.py",
    "tensor/two_layer_net_tensor.py",
    "autograd/two_layer_net_autograd.py",
    "advanced/two_layer_net_custom_function.py",
    "nn/two_layer_net_sequential.py",
    "nn/two_layer_net_nn.py",
    "optim/two_layer_net_optim.py",
    "advanced/dynamic_net.py",
]
curves = {}
for script in ladder:
    # Run as if from the command line, one after the other: importing torch takes longer
    # than a script does, and here it is imported once.
    path = Path(__file__).parents[1] / script
    output = io.StringIO()
    with contextlib.redirect_stdout(output), mock.patch.object(sys, "argv", [script]):
        runpy.run_path(str(path))
    # A line is "step   50  loss 1.0281e+04".
    lines = re.findall(r"^step +(\d+)  loss (\S+)", output.getvalue(), re.MULTILINE)
    curves[script] = {int(step): float(loss) for step, loss in lines}
    first, later = (curves[script][step] for step in (1, 200))
    print(f"{script:42}loss {first:.4e}  step 200 loss {later:.4e}")

if args.plot:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), dpi=80, layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
    for i, (script, curve) in enumerate(curves.items()):
        # Wide lines first: those that come to lie on them leave their edges to be seen.
        width = 10 - 2 * i if i < 5 else 2
        axes.plot(curve.keys(), curve.values(), linewidth=width, label=script)
    figure.legend(loc="outside lower center", ncols=2)
    # The losses go into the file as text, too, for programs to read.
    try:
        figure.savefig(args.plot, metadata={"Description": json.dumps(curves)})
    except OSError as error:
        parser.error(f"cannot write {args.plot}: {error}")
