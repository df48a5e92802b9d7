"""Count the graphs that torch.compile makes of a function.

A function of tensor operations becomes one graph. What cannot be in a graph, such as a
print, breaks it in two. What a graph relies on, such as the shape of its input, makes a
second graph necessary when it changes; that one then holds for every length.
"""

import argparse

import torch


def gelu(x):
    """Return the GELU of x, of any shape, by nine elementwise operations.

    Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, the form with tanh.
    """
    return 0.5 * x * (1 + torch.tanh(0.7978846 * (x + 0.044715 * x * x * x)))


def gelu_twice(x):
    """Return the GELU of the GELU of x."""
    return gelu(gelu(x))


def gelu_print_gelu(x):
    """Do the same, with a print in between, if only of nothing: work for Python."""
    x = gelu(x)
    print(end="")
    return gelu(x)


def graph_sizes(function, inputs):
    """Compile a function, call it with each of the inputs in turn.

    Returns one number for each graph that this took: how many operations it has.
    """
    sizes = []

    def backend(graph, example_inputs):
        """Compile a graph: count its operations, and leave it as it is."""
        operations = [node for node in graph.graph.nodes if node.op == "call_function"]
        sizes.append(len(operations))
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(function, backend=backend)
    for x in inputs:
        compiled(x)
    return sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()

    for function, lengths in [
        (gelu, [10]),
        (gelu_twice, [10]),
        (gelu_print_gelu, [10]),
        (gelu, [10, 20, 30]),
    ]:
        sizes = graph_sizes(function, [torch.ones(length) for length in lengths])
        print(f"{function.__name__:15}  lengths {lengths}  operations {sizes}")


if __name__ == "__main__":
    main()
