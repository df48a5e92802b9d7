"""Compute the gradient of every sample at once, and find a wrong label by it.

backward() gives the gradient of the batch, in which the samples are added up. In
torch.func, grad turns the loss of one sample into its gradient, and vmap maps that over
the batch. Watch for the sample whose gradient is much larger than all others.
"""

import argparse
import timeit

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy


def make_data(seed=0):
    """Return inputs (256, 50), labels (256,), and the index of the one wrong label.

    There are ten classes. Each has a center, and its samples lie around it.
    """
    torch.manual_seed(seed)
    labels = torch.randint(10, (256,))
    centers = torch.randn(10, 50)
    inputs = centers[labels] + torch.randn(256, 50)

    wrong = torch.randint(256, ()).item()
    labels[wrong] = (labels[wrong] + 1) % 10
    return inputs, labels, wrong


def sample_gradients(model, params, inputs, labels):
    """Return the gradients of all samples by vmap.

    params is a dictionary of the model's parameters. The result has the same keys; for
    a parameter of shape (H, D_in), the gradients have the shape (N, H, D_in).
    """

    def sample_loss(params, sample, label):
        # The model is run with these parameters in place of its own.
        logits = functional_call(model, params, (sample,))
        return cross_entropy(logits, label)

    # grad differentiates with respect to the first argument. That is the same for all
    # samples (None); inputs and labels are split along their dimension 0.
    gradients = vmap(grad(sample_loss), in_dims=(None, 0, 0))
    return gradients(params, inputs, labels)


def sample_gradients_by_loop(model, inputs, labels):
    """Return the same by one backward pass for each sample."""
    gradients = {name: [] for name, _ in model.named_parameters()}
    for sample, label in zip(inputs, labels, strict=True):
        model.zero_grad()
        cross_entropy(model(sample), label).backward()
        for name, param in model.named_parameters():
            gradients[name].append(param.grad)
    return {name: torch.stack(gradients[name]) for name in gradients}


def norms(gradients):
    """Return the length (N,) of each sample's gradient, over all parameters."""
    squares = [grads.flatten(1).square().sum(1) for grads in gradients.values()]
    return torch.stack(squares).sum(0).sqrt()


def fastest(function, device):
    """Return the seconds of the fastest of five calls."""

    def call():
        function()
        if device != "cpu":
            torch.accelerator.synchronize()  # a GPU works on after the call returned

    return min(timeit.repeat(call, number=1, repeat=5))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    args = parser.parse_args()

    inputs, labels, wrong = make_data()
    inputs, labels = inputs.to(args.device), labels.to(args.device)
    model = nn.Sequential(nn.Linear(50, 100), nn.ReLU(), nn.Linear(100, 10))
    model.to(args.device)

    # The tensors of the model, without autograd: torch.func does its work here.
    params = {name: param.detach() for name, param in model.named_parameters()}

    learning_rate = 0.1
    for t in range(1, args.steps + 1):
        if t == 1 or t % 50 == 0:
            loss = cross_entropy(model(inputs), labels)
            print(f"step {t:4d}  loss {loss.item():.4e}")

        # The gradient of the mean loss is the mean of the gradients.
        gradients = sample_gradients(model, params, inputs, labels)
        for name, param in params.items():
            param -= learning_rate * gradients[name].mean(0)

    gradients = sample_gradients(model, params, inputs, labels)
    lengths = norms(gradients)  # (N,)
    print(f"the wrong label is that of sample {wrong}")
    for i in lengths.topk(3).indices.tolist():
        print(f"sample {i:3d}  norm {lengths[i].item():.3f}")
    print(f"median      norm {lengths.median().item():.3f}")

    by_loop = sample_gradients_by_loop(model, inputs, labels)
    torch.testing.assert_close(gradients, by_loop)
    print("a loop over the samples finds the same gradients")

    vmap_seconds = fastest(
        lambda: sample_gradients(model, params, inputs, labels), args.device
    )
    loop_seconds = fastest(
        lambda: sample_gradients_by_loop(model, inputs, labels), args.device
    )
    print(f"vmap compared with the loop  speed {loop_seconds / vmap_seconds:.1f}")


if __name__ == "__main__":
    main()
