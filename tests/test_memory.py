"""Memory is what was predicted, to the byte; checkpointing changes nothing else.

The oracle sees every tensor that an operation returns, and asks which of them are still
alive. The scripts ask autograd instead what it has saved.
"""

import math
import re

import gpt_memory
import memory_in_bytes
import pytest
import torch
from collection import AUTOGRAD, curve, execute, run
from memory_in_bytes import WAYS, D_in, D_out, H, Memory, N
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

CHECKPOINTED = "advanced/two_layer_net_checkpointed.py"
BYTES = "advanced/memory_in_bytes.py"


class Living(TorchDispatchMode):
    """Knows the memory of all tensors that were made in it, while they are alive.

    Each takes a multiple of so many bytes. peak is the most that there was at a time.
    """

    def __init__(self, multiple=1):
        super().__init__()
        self.multiple = multiple
        self.made = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                size = math.ceil(storage.nbytes() / self.multiple) * self.multiple
                reference = StorageWeakRef(storage)
                self.made[reference.cdata] = reference, size
        self.peak = max(self.peak, self.memory())
        return result

    def memory(self, *_):
        gone = [key for key, (reference, _) in self.made.items() if reference.expired()]
        for key in gone:
            del self.made[key]
        return sum(size for _, size in self.made.values())


def batch(way):
    """Return x and y, as random as those of the script."""
    return torch.randn(N, D_in, dtype=way.dtype), torch.randn(N, D_out, dtype=way.dtype)


def step(way, living):
    """Take a step and return what came to life in it, but for the loss."""
    x, y = batch(way)
    with living:
        model, optimizer = memory_in_bytes.make(way, "cpu")
        there = [living.memory()]
        loss = memory_in_bytes.forward(way, model, x, y)
        size = math.ceil(way.dtype.itemsize / living.multiple) * living.multiple
        saved = living.memory() - there[0] - size
        if way.optimizer is None:
            return Memory(weights=there[0], saved=saved)
        loss.backward()
        del loss
        there.append(living.memory())
        optimizer.step()
        there.append(living.memory())
    weights, gradients, optimizer = there[0], there[1] - there[0], there[2] - there[1]
    return Memory(weights, gradients, optimizer, saved)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_predicted_counted_and_living_are_the_same(way):
    expected = step(way, Living())
    assert memory_in_bytes.predicted(way) == expected
    assert memory_in_bytes.counted(way, *batch(way)) == expected


@pytest.mark.parametrize(
    "fault",
    [
        # A tensor is forgotten: by the formula, or by what counts.
        ("N * H * size + N * D_out * size", "N * H * size"),
        ("saved.append(tensor)", "saved[:] = [tensor]"),
        # Memory that two tensors share is counted twice: the output of the ReLU, which
        # is also the input of the second layer, and the weights.
        ("sizes[storage.data_ptr()] = ", "sizes[len(sizes)] = "),
        # x is counted, which is there without a graph.
        ("there = [x, y, *weights]", "there = [y, *weights]"),
        # Adam's counters of steps are left out.
        ("2 * parameters * size + 2 * 4", "2 * parameters * size"),
        ("bytes_of(state)", "bytes_of(each for each in state if each.dim())"),
        # Checkpointing saves nothing, or is taken to save everything.
        ("        if way.checkpointed:", "        if False:"),
        ("memory.saved = N * D_out * size\n", "memory.saved = 0\n"),
    ],
    ids=lambda fault: fault[1].strip(),
)
def test_a_fault_in_the_script_would_be_seen(fault):
    variables = execute(BYTES, fault, argv=())
    wrong = 0
    for way in variables["WAYS"]:
        expected = vars(step(way, Living()))
        wrong += vars(variables["predicted"](way)) != expected
        wrong += vars(variables["counted"](way, *batch(way))) != expected
    assert wrong


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_allocator_is_asked_at_the_right_times(way, monkeypatch):
    """Here it is a stand-in for CUDA's, which rounds up as that does."""
    expected = step(way, Living(multiple=512))
    x, y = batch(way)
    with Living(multiple=512) as living:
        monkeypatch.setattr(torch.cuda, "memory_allocated", living.memory)
        found = memory_in_bytes.allocated(way, x, y)
    expected.saved += 512  # the loss
    assert found == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_allocator_of_cuda_rounds_up(way):
    """Each of at most seven tensors by less than 512 bytes; counters are on the CPU."""
    x, y = (tensor.cuda() for tensor in batch(way))
    exact = memory_in_bytes.counted(way, x, y)
    found = memory_in_bytes.allocated(way, x, y)
    for name, size in vars(exact).items():
        assert -8 <= getattr(found, name) - size < 7 * 512


@pytest.mark.parametrize("script", [BYTES])
def test_what_is_printed_is_what_was_found(script):
    lines = run(script).stdout.splitlines()[1:]
    for way, line, next_line in zip(WAYS, lines[::2], lines[1::2], strict=True):
        expected = [str(size) for size in vars(step(way, Living())).values()]
        assert line.split()[-5:] == ["predicted", *expected]
        assert line.startswith(way.name)
        assert next_line.split() == ["counted", *expected]


# Checkpointing


@pytest.mark.parametrize(
    "threads, steps, dtype",
    [(1, 500, torch.float32), (1, 500, torch.float64), (2, 20, torch.float32)],
)
def test_checkpointing_changes_no_bit_of_the_losses(threads, steps, dtype):
    how = {"threads": threads, "steps": steps, "dtype": dtype}
    found = curve(CHECKPOINTED, ("range(30)", "range(1)"), **how)  # measures less
    assert torch.equal(found, curve(AUTOGRAD, **how))


def kept(variables):
    """Return {name: bytes that are alive between forward and backward pass}."""
    found = {}
    for name in ("plain", "checkpointed"):
        with Living() as living:
            loss = (variables[name](variables["x"]) - variables["y"]).square().sum()
            found[name] = living.memory() - loss.nbytes
    return found


@pytest.mark.parametrize("script", [CHECKPOINTED])
def test_fewer_bytes_are_kept_and_printed(script):
    variables = execute(CHECKPOINTED)
    assert kept(variables) == {"plain": 28160, "checkpointed": 2560}
    for name, size in kept(variables).items():
        assert variables["bytes_kept"](variables[name]) == size
        assert f"{name:12}  bytes kept {size}  mill" in run(script).stdout


@pytest.mark.parametrize(
    "fault",
    [
        ("return checkpoint(plain, x, use_reentrant=False)", "return plain(x)"),
        ("saved.append(tensor)", "saved[:] = [tensor]"),
        ("sizes[storage.data_ptr()] = ", "sizes[len(sizes)] = "),
        ("for tensor in (x, y, w1, w2):", "for tensor in (y, w1, w2):"),
    ],
    ids=lambda fault: fault[1],
)
def test_a_fault_in_the_checkpointed_script_would_be_seen(fault):
    variables = execute(CHECKPOINTED, fault)
    found = {
        name: variables["bytes_kept"](variables[name])
        for name in ("plain", "checkpointed")
    }
    assert found != {"plain": 28160, "checkpointed": 2560}


def test_time_is_paid_for_one_product_more():
    """x @ w1 is computed twice: 2 * 64 * 1000 * 100 more operations."""
    variables = execute(CHECKPOINTED)
    found = []
    for name in ("plain", "checkpointed"):
        with FlopCounterMode(display=False) as counter:
            variables[name](variables["x"]).sum().backward()
        found.append(counter.get_total_flops())
    assert found[1] - found[0] == 2 * N * D_in * H


@pytest.mark.parametrize("segments", [None, 1, 2, 4, 8, 16])
def test_segments_lower_the_peak_and_one_alone_does_not(segments):
    """Counted in activations of a layer, of which there are 16; the weights are small.

    Besides the inputs of the segments and the activations of one of them, there are the
    gradients of the input and of the output of a layer.
    """
    layers = [nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(16)]
    h = x = torch.randn(10_000, 8)
    with Living() as living:
        if segments is None:
            h = nn.Sequential(*layers)(h)
        for part in torch.arange(16).chunk(segments) if segments else ():
            segment = nn.Sequential(*[layers[i] for i in part])
            h = checkpoint(segment, h, use_reentrant=False)
        h.sum().backward()
    expected = 16 if segments is None else segments - 1 + 16 // segments
    assert round(living.peak / x.nbytes) == expected + 2


# A GPT


class Block(nn.Module):
    """A block of a GPT without dropout: (batch, T, width) to the same."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, h):
        qkv = self.qkv(self.norms[0](h)).chunk(3, dim=2)
        q, k, v = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in qkv)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(mixed.transpose(1, 2).flatten(start_dim=2))
        return h + self.mlp(self.norms[1](h))


class GPT(nn.Module):
    def __init__(self, layers, width, context, vocabulary, heads=4):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, vocabulary, bias=False)
        self.linear.weight = self.embedding.weight

    def forward(self, tokens, checkpointed):
        h = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=False) if checkpointed else block(h)
        return self.linear(self.norm(h))


@pytest.mark.parametrize(
    "layers, width, published",
    # Radford et al., 2019, have the layers and widths; the counts are those of the
    # weights that they published.
    [
        (12, 768, 124_439_808),
        (24, 1024, 354_823_168),
        (36, 1280, 774_030_080),
        (48, 1600, 1_557_611_200),
    ],
)
def test_parameters_are_those_of_gpt_2(layers, width, published):
    sizes = layers, width, 1024, 50257
    with torch.device("meta"):
        model = GPT(*sizes)
    assert sum(w.numel() for w in model.parameters()) == published
    assert gpt_memory.count_parameters(*sizes) == published


@pytest.mark.parametrize("checkpointed", [False, True])
def test_saved_tensors_of_a_gpt_are_those_predicted(checkpointed):
    layers, width, context, vocabulary, heads, texts = 3, 64, 32, 65, 4, 2
    tokens = texts * context
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), Living() as living:
        model = GPT(layers, width, context, vocabulary, heads)
        inputs = torch.randint(vocabulary, (texts, context))
        there = living.memory()
        logits = model(inputs, checkpointed)
        loss = cross_entropy(logits.flatten(0, 1), inputs.flatten())
        del logits
        found = living.memory() - there
        loss.backward()
    predicted = gpt_memory.saved_in_blocks(layers, width, tokens, checkpointed)
    predicted += gpt_memory.saved_after_blocks(width, tokens, vocabulary)

    # What the script leaves out: mean and deviation of each LayerNorm, one number per
    # token and head in attention, the positions, the loss and the number of targets.
    small = 2 * tokens
    if checkpointed:
        predicted -= 15 * tokens * width  # these are there in the backward pass alone
    else:
        small += layers * (2 * 2 * tokens + heads * tokens)
    assert found == 4 * (predicted + small) + 8 * context + 2 * 4


def test_gpt_table_adds_up():
    """16 bytes per parameter, and 4 or 2 per saved element, in GiB of two decimals."""
    first, *lines = run("advanced/gpt_memory.py").stdout.splitlines()
    assert first == "124,439,808 parameters"
    rows = [line.split()[-2:] for line in lines[2:] if re.search(r"\d$", line)]
    rows = torch.tensor([[float(n) for n in row] for row in rows], dtype=torch.float64)
    training = rows[:3].sum(0)
    rounding = 3 * 0.005
    expected = 16 * 124_439_808 / 2**30
    assert (training - expected).abs().max() <= 1.01 * rounding
    for saved in (rows[3:6], rows[6:9]):
        assert (saved[:, 0] - 2 * saved[:, 1])[:2].abs().max() <= 1.01 * rounding
        together = training + saved[:2].sum(0)
        assert (together - saved[2]).abs().max() <= 1.01 * 2 * rounding
    assert rows[6, 0] < rows[3, 0] / 4
