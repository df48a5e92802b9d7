"""Draw the depth of a network anew in every call: in eager PyTorch, compiled, exported.

Each line shows the depths of five calls after the same seed. torch.compile goes back to
Python for the draw and makes a graph for every depth. torch.export keeps the one depth
that it saw, and says nothing. What is to happen in a graph must be said in the graph:
while_loop repeats a layer and torch.cond chooses one, as the numbers in the graph are.
"""

import argparse
import contextlib
import io
import logging
import random

import torch
from torch._higher_order_ops import while_loop


class DynamicNet(torch.nn.Module):
    """1 + depth hidden layers, all but the first with one shared weight."""

    def __init__(self, D_in, H, D_out):
        super().__init__()
        self.input_linear = torch.nn.Linear(D_in, H)
        self.middle_linear = torch.nn.Linear(H, H)
        self.output_linear = torch.nn.Linear(H, D_out)

    def at_depth(self, x, depth):
        """Map x of shape (N, D_in) to (N, D_out), with depth an int."""
        h_relu = self.input_linear(x).relu()  # (N, H)
        for _ in range(depth):
            h_relu = self.middle(h_relu)
        return self.output_linear(h_relu)

    def middle(self, h_relu):
        return self.middle_linear(h_relu).relu()  # (N, H)


class DrawInPython(DynamicNet):
    """The depth is drawn by Python: no graph knows of it."""

    def forward(self, x):
        return self.at_depth(x, random.randint(0, 3))


class DrawInGraph(DynamicNet):
    """The depth is a tensor, and the loop over it is one operation."""

    def forward(self, x):
        def more(k, h_relu):
            return k > 0

        def layer(k, h_relu):
            return k - 1, self.middle(h_relu)

        depth = torch.randint(0, 4, ())
        h_relu = self.input_linear(x).relu()
        _, h_relu = while_loop(more, layer, (depth, h_relu))
        return self.output_linear(h_relu)


class IfInPython(DynamicNet):
    """The depth is 1 where the sum of x is positive, otherwise 0: Python looks at x."""

    def forward(self, x):
        return self.at_depth(x, 1 if x.sum() > 0 else 0)


class IfInGraph(DynamicNet):
    """The same, but both ways are in the graph, and the graph looks at x."""

    def forward(self, x):
        h_relu = self.input_linear(x).relu()
        h_relu = torch.cond(x.sum() > 0, self.middle, torch.clone, (h_relu,))
        return self.output_linear(h_relu)


def count_and_run(graph, example_inputs):
    """Be a backend of torch.compile: note each new graph, and run it as it is."""
    graphs.append(graph)
    return graph.forward


def depths(call):
    """Return the depths that five calls use, found by comparing with all of them."""
    random.seed(0)
    torch.manual_seed(0)
    found = ""
    for x in xs:
        y_pred = call(x)
        for depth in range(4):
            if torch.allclose(y_pred, model.at_depth(x, depth), atol=1e-4):
                found += f" {depth}"
    return found


parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.parse_args()
if not __debug__:
    parser.error("torch.export needs its assertions: run this without -O")

# A graph that breaks or fails is logged and printed, too; the lines below say enough.
logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
logging.getLogger("torch.fx").setLevel(logging.ERROR)
N, D_in, H, D_out = 64, 1000, 100, 10  # batch, input, hidden and output size
torch.manual_seed(0)
xs = [torch.randn(N, D_in) + shift for shift in (0.1, -0.1, 0.1, 0.1, -0.1)]
for network in (DrawInPython, DrawInGraph, IfInPython, IfInGraph):
    model = network(D_in, H, D_out).requires_grad_(False)
    graphs = []
    torch.compiler.reset()
    compiled = torch.compile(model, backend=count_and_run)
    print(f"{network.__name__:12}  eager         {depths(model)}")
    print(f"{'':12}  torch.compile {depths(compiled)}  graphs {len(graphs)}")
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            exported = torch.export.export(model, (xs[0],)).module()
        print(f"{'':12}  torch.export  {depths(exported)}")
    except RuntimeError as error:
        print(f"{'':12}  torch.export   {type(error).__name__}")
