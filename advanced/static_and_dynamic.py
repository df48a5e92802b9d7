"""See what becomes of Python's loops and ifs in a graph: compiled, and exported.

Four networks use a layer as often as a random number or their input says. The layer
only adds 1, so that the output shows how often it was used, here in five calls.
torch.compile goes back to Python where it must, and makes more graphs. torch.export has
one graph and no Python: it keeps the number that it saw drawn, or refuses an if. What a
graph is to do must be an operation: while_loop repeats a layer, torch.cond chooses one.
"""

import argparse
import contextlib
import io
import logging
import random

import torch
from torch import nn
from torch._higher_order_ops import while_loop


def layer(h):
    """Stand for a layer of a network: return h + 1, of the shape of h."""
    return h + 1


def layers(h, k):
    """Apply the layer k times."""
    for _ in range(k):
        h = layer(h)
    return h


class DrawInPython(nn.Module):
    """Uses the layer one to four times; Python draws how often."""

    def forward(self, h):
        return layers(h, random.randint(1, 4))


class DrawInGraph(nn.Module):
    """Does the same, but both the draw and the loop are operations."""

    def forward(self, h):
        def more(k, h):
            return k > 0

        def body(k, h):
            return k - 1, layer(h)

        k = torch.randint(1, 5, ())
        k, h = while_loop(more, body, (k, h))
        return h


class IfInPython(nn.Module):
    """Uses the layer if the sum of its input is positive; Python looks at the sum."""

    def forward(self, h):
        if h.sum() > 0:
            h = layer(h)
        return h


class IfInGraph(nn.Module):
    """Does the same, but the choice is an operation, and both branches are in it."""

    def forward(self, h):
        return torch.cond(h.sum() > 0, layer, torch.clone, (h,))


def uses(network, inputs):
    """Return how often the network used the layer, for each of the inputs."""
    random.seed(0)
    torch.manual_seed(0)
    counts = []
    for h in inputs:
        added = network(h) - h
        counts.append(round(added.mean().item()))
    return counts


def compiled(network):
    """Return the network compiled, and a list that grows with each graph made of it."""
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    return torch.compile(network, backend=backend), graphs


def exported(network, example):
    """Return the one graph that torch.export makes of the network."""
    # An export that fails is also told on stderr, at length.
    with contextlib.redirect_stderr(io.StringIO()):
        return torch.export.export(network, (example,)).module()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    if not __debug__:
        parser.error("torch.export needs Python's assertions: run this without -O")

    # PyTorch logs graphs that break or fail; the lines below say as much.
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    logging.getLogger("torch.fx").setLevel(logging.ERROR)

    # Two of the five inputs are negative.
    inputs = [torch.full((3,), value) for value in (1.0, -1.0, 1.0, 1.0, -1.0)]
    for network in (DrawInPython(), DrawInGraph(), IfInPython(), IfInGraph()):
        name = type(network).__name__
        print(f"{name:12}  eager    {uses(network, inputs)}")

        fast, graphs = compiled(network)
        print(f"{name:12}  compile  {uses(fast, inputs)}  graphs {len(graphs)}")

        try:
            frozen = exported(network, inputs[0])
            print(f"{name:12}  export   {uses(frozen, inputs)}")
        except RuntimeError as error:
            print(f"{name:12}  export   {type(error).__name__}")


if __name__ == "__main__":
    main()
