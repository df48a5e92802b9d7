"""Draw the graph that autograd records for the loss of the two-layer network.

Each node is a function of the backward pass: it takes the gradient of its output and
hands on the gradients of its inputs. Tensors travel along the arrows. The drawing is
printed in the language of Mermaid, which GitHub and many editors turn into a picture.
"""

import argparse

import torch

parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.parse_args()

N, D_in, H, D_out = 64, 1000, 100, 10  # batch, input, hidden and output size
x = torch.randn(N, D_in)
y = torch.randn(N, D_out)
w1 = torch.randn(D_in, H, requires_grad=True)
w2 = torch.randn(H, D_out, requires_grad=True)
loss = ((x @ w1).relu() @ w2 - y).square().sum()

# Walk from the loss to the weights. The list grows as new nodes come into sight.
nodes = [loss.grad_fn]
arrows = []
for node in nodes:
    for next_node, _ in node.next_functions:
        if next_node is not None:  # x and y need no gradient: nothing leads to them
            if next_node not in nodes:
                nodes.append(next_node)
            arrows.append((nodes.index(node), nodes.index(next_node)))

# The graph ends in functions that add what arrives to the grad of a weight.
print("flowchart TD")
for i, node in enumerate(nodes):
    label = type(node).__name__
    if hasattr(node, "variable"):
        label += " to w1.grad" if node.variable is w1 else " to w2.grad"
    print(f'    n{i}(["{label}"])')
for start, end in arrows:
    print(f"    n{start} --> n{end}")
