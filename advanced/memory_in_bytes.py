"""Predict the memory that training takes, then count it: both agree to the byte.

Four things take memory: the weights, their gradients, what the optimizer remembers of
past steps, and the tensors that autograd saves for the backward pass. Look at what
Adam, bfloat16, checkpointing and no_grad change, and at the 8 bytes that Adam takes
besides its averages. On CUDA, the allocator is asked as well.
"""

import argparse
from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

# N is batch size; D_in is input dimension;
# H is hidden dimension; D_out is output dimension.
N, D_in, H, D_out = 64, 1000, 100, 10


@dataclass
class Way:
    """A way to run the network: trained with an optimizer or, without one, only run."""

    name: str
    optimizer: type | None
    dtype: torch.dtype = torch.float32
    checkpointed: bool = False


WAYS = [
    Way("SGD", torch.optim.SGD),
    Way("Adam", torch.optim.Adam),
    Way("Adam, checkpointed", torch.optim.Adam, checkpointed=True),
    Way("Adam, bfloat16", torch.optim.Adam, dtype=torch.bfloat16),
    Way("no_grad", None),
]


@dataclass
class Memory:
    """Bytes, by what they are for."""

    weights: int
    gradients: int = 0
    optimizer: int = 0
    saved: int = 0


def predicted(way):
    """Return the memory that a way takes, as far as the shapes tell."""
    parameters = D_in * H + H * D_out
    size = way.dtype.itemsize  # 4 bytes for a float32, 2 for a bfloat16
    memory = Memory(weights=parameters * size)
    if way.optimizer is None:
        return memory

    # A gradient has the shape of its weight.
    memory.gradients = parameters * size

    # Adam keeps two averages for each parameter. Besides, it counts the steps of each
    # of the two weights, in a float32 of 4 bytes.
    if way.optimizer is torch.optim.Adam:
        memory.optimizer = 2 * parameters * size + 2 * 4

    # Autograd saves the output of the ReLU, (N, H), for the second layer and for the
    # ReLU itself; and the error, (N, D_out), for its square. Of a network that is
    # checkpointed, only the input x is kept, which is there anyway.
    memory.saved = N * H * size + N * D_out * size
    if way.checkpointed:
        memory.saved = N * D_out * size
    return memory


def make(way, device):
    """Return the network and its optimizer, or None."""
    model = nn.Sequential(
        nn.Linear(D_in, H, bias=False),
        nn.ReLU(),
        nn.Linear(H, D_out, bias=False),
    ).to(device, way.dtype)
    optimizer = None
    if way.optimizer is not None:
        optimizer = way.optimizer(model.parameters(), lr=1e-6)
    return model, optimizer


def forward(way, model, x, y):
    """Return the loss, the sum of the squared errors."""
    with torch.set_grad_enabled(way.optimizer is not None):
        if way.checkpointed:
            y_pred = checkpoint(model, x, use_reentrant=False)  # (N, D_out)
        else:
            y_pred = model(x)  # (N, D_out)
        return (y_pred - y).square().sum()


def bytes_of(tensors):
    """Return the bytes of memory behind tensors; what some share is counted once."""
    sizes = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def counted(way, x, y):
    """Take a step and return the memory of the tensors that it leaves or saves."""
    model, optimizer = make(way, x.device)
    weights = list(model.parameters())
    memory = Memory(weights=bytes_of(weights))
    saved = []

    def note(tensor):
        saved.append(tensor)
        return tensor

    # Autograd calls note() with every tensor that it saves for the backward pass. Among
    # them are x and the weights, which would be there anyway.
    with saved_tensors_hooks(note, lambda tensor: tensor):
        loss = forward(way, model, x, y)
    there = [x, y, *weights]
    memory.saved = bytes_of(there + saved) - bytes_of(there)

    if optimizer is not None:
        loss.backward()
        optimizer.step()
        memory.gradients = bytes_of(w.grad for w in weights)
        state = []
        for w in weights:
            state += optimizer.state[w].values()
        memory.optimizer = bytes_of(state)
    return memory


def allocated(way, x, y):
    """Take a step and return how much CUDA's allocator gives out for each purpose.

    It rounds each tensor up to a multiple of 512 bytes. The loss is among the saved.
    Call counted() first: the first products also allocate what cuBLAS keeps for itself.
    """
    start = torch.cuda.memory_allocated()
    model, optimizer = make(way, x.device)
    with_weights = torch.cuda.memory_allocated()
    loss = forward(way, model, x, y)
    with_saved = torch.cuda.memory_allocated()
    memory = Memory(weights=with_weights - start, saved=with_saved - with_weights)

    if optimizer is not None:
        loss.backward()
        del loss
        with_gradients = torch.cuda.memory_allocated()
        optimizer.step()
        memory.gradients = with_gradients - with_weights
        memory.optimizer = torch.cuda.memory_allocated() - with_gradients
    return memory


def show(name, how, memory):
    print(f"{name:18}  {how:9}  {memory.weights:7}", end="")
    print(f"  {memory.gradients:9}  {memory.optimizer:9}  {memory.saved:6}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, xpu")
    args = parser.parse_args()

    print(f"{'':18}  {'bytes':9}  weights  gradients  optimizer   saved")
    for way in WAYS:
        torch.manual_seed(0)
        x = torch.randn(N, D_in, device=args.device, dtype=way.dtype)
        y = torch.randn(N, D_out, device=args.device, dtype=way.dtype)
        show(way.name, "predicted", predicted(way))
        show("", "counted", counted(way, x, y))
        if x.device.type == "cuda":
            show("", "allocated", allocated(way, x, y))


if __name__ == "__main__":
    main()
