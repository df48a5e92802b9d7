"""Draw the graph that autograd records for the loss of the two-layer network.

Each node is a function of the backward pass: it turns the gradient of its output
into those of its inputs. The drawing is printed in the language of Mermaid, which
GitHub and many editors turn into a picture.
"""

import argparse

import torch

parser = argparse.ArgumentParser(description=__doc__)
parser.parse_args()

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10

x = torch.randn(N, D_in)
y = torch.randn(N, D_out)
w1 = torch.randn(D_in, H, requires_grad=True)
w2 = torch.randn(H, D_out, requires_grad=True)

y_pred = (x @ w1).relu() @ w2  # (N, D_out)
loss = (y_pred - y).square().sum()

# Walk from the loss to the weights; the list grows while the loop goes through it.
nodes = [loss.grad_fn]
arrows = []
for node in nodes:
    for next_node, _ in node.next_functions:
        if next_node is None:
            continue  # x and y need no gradient: nothing leads to them
        if next_node not in nodes:
            nodes.append(next_node)
        arrows.append((nodes.index(node), nodes.index(next_node)))

# The graph ends in the nodes that add what arrives to w1.grad and w2.grad.
names = {w1: "w1", w2: "w2"}

print("flowchart TD")
for i, node in enumerate(nodes):
    label = type(node).__name__
    if label == "AccumulateGrad":
        label += f" to {names[node.variable]}.grad"
    print(f'    n{i}(["{label}"])')
for start, end in arrows:
    print(f"    n{start} --> n{end}")
