"""Exercises with RNNs and attention, judged at once.

Replace "raise NotImplementedError" in a function by your answer, then let it be judged:

    python rnn/rnn_exercises.py                      all of them
    python rnn/rnn_exercises.py gru_step             one, and where it fails
    python rnn/rnn_exercises.py gru_step --hint      one, with a hint

The file works alone, so a copy of it does as well. The judge is at its end.
"""

import argparse
import contextlib
import copy
import faulthandler
import inspect
import math
import multiprocessing
import os
import signal
import sys
import textwrap
import time
import traceback
import types

import numpy as np
import torch
from torch import nn


def encode_text(text):
    """Replace each character of a text by its index in a sorted vocabulary.

    text is a string. Its vocabulary is a string as well: all characters of the text,
    each once, in the order of sorted(). Return the vocabulary and an int64 tensor of
    shape (len(text),) with the indices. For an empty text both are empty.

    >>> encode_text("hello")
    ('ehlo', tensor([1, 0, 2, 2, 3]))

    Read: rnn/README.md#a-character-level-language-model
    """
    raise NotImplementedError


def bits_per_character(logits, targets):
    """Return the mean of -log2 p, where p is the probability of each target.

    logits has shape (T, N, V), and softmax over its last dimension gives the
    probabilities of the V characters. Its elements may be as large as 10,000 or as
    small as -10,000. targets has shape (T, N) and holds integers from 0 to V - 1: the
    characters that really came. Return a tensor of shape (), the mean over all T * N
    characters.

    >>> bits_per_character(torch.zeros(5, 2, 4), torch.zeros(5, 2, dtype=torch.int64))
    tensor(2.)

    Read: rnn/README.md#bits-per-character
    """
    raise NotImplementedError


def elman_states(x, h, w_ih, w_hh, bias):
    """Run an Elman RNN over a batch of sequences and return all of its states.

    x has shape (T, N, D): T time steps of N sequences. h, of shape (N, H), is the state
    before the first step. w_ih has shape (H, D), w_hh (H, H) and bias (H,). For each
    sequence the new state is tanh(w_ih @ x[t] + w_hh @ (the old state) + bias). Return
    the T new states, of shape (T, N, H). T is at least 1.

    >>> x, h, one = torch.zeros(2, 1, 1), torch.ones(1, 1), torch.ones(1, 1)
    >>> elman_states(x, h, one, one, torch.zeros(1)).flatten()
    tensor([0.7616, 0.6420])

    Read: rnn/README.md#an-elman-rnn-by-hand
    """
    raise NotImplementedError


def gru_step(x, h, w_ih, w_hh, b_ih, b_hh):
    """Compute one step of a GRU. Do not call GRU() or GRUCell() of PyTorch.

    x has shape (N, D), and the old state h has shape (N, H). w_ih has shape (3 * H, D),
    w_hh (3 * H, H), b_ih and b_hh (3 * H,). Of these, the first H rows or elements
    belong to the reset gate r, the next to the update gate z, the last to the new part
    n. For one sequence, with * element-wise:

        r = sigmoid(w_ir @ x + b_ir + w_hr @ h + b_hr)
        z = sigmoid(w_iz @ x + b_iz + w_hz @ h + b_hz)
        n = tanh(w_in @ x + b_in + r * (w_hn @ h + b_hn))
        new state = (1 - z) * n + z * h

    Return the new states, of shape (N, H).

    >>> x, h, zeros = torch.ones(1, 2), torch.tensor([[4.0]]), torch.zeros(3)
    >>> gru_step(x, h, torch.zeros(3, 2), torch.zeros(3, 1), zeros, zeros)
    tensor([[2.]])

    Read: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRUCell.html
    """
    raise NotImplementedError


def last_states(hs, lengths):
    """Pick the state after the last real step of each sequence of a padded batch.

    hs has shape (T, N, H). lengths has shape (N,) and holds integers from 1 to T:
    sequence i has its states in the first lengths[i] steps, and then comes padding,
    which the RNN has read as well. Return a tensor of shape (N, H).

    >>> hs = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    >>> last_states(hs, torch.tensor([2, 1]))
    tensor([[3.],
            [2.]])

    Read: rnn/README.md#sequences-of-different-lengths-padding-and-packing
    """
    raise NotImplementedError


def masked_loss(y_pred, y, lengths):
    """Return the mean squared error over the real steps of a padded batch.

    y_pred and y have shape (T, N, D). lengths has shape (N,) and holds integers from 1
    to T: the first lengths[i] steps of sequence i are real, the others are padding.
    Return a tensor of shape (), the mean over all elements of all real steps. The
    padding can be anything, even nan in both, and must change neither the loss nor its
    gradient in y_pred.

    >>> y = torch.tensor([[[1.0], [3.0]], [[1.0], [torch.nan]]])
    >>> masked_loss(torch.zeros(2, 2, 1), y, torch.tensor([2, 1]))
    tensor(3.6667)

    Read: rnn/README.md#masking-the-loss
    """
    raise NotImplementedError


def causal_attention(query, key, value):
    """Let each step attend to itself and to all steps before it.

    query and key have shape (N, heads, T, D), value has shape (N, heads, T, E). The
    score of steps t and s is the dot product of query t and key s, divided by the
    square root of D. The weights of step t are the softmax of its scores with all steps
    s <= t. Return a tensor of shape (N, heads, T, E): at each step t, the average of
    the values with these weights. The scores may be as large as 1,000 or as small as
    -1,000. Do not call scaled_dot_product_attention().

    >>> zeros, value = torch.zeros(1, 1, 3, 2), torch.tensor([[[[1.0], [3.0], [8.0]]]])
    >>> causal_attention(zeros, zeros, value).flatten()
    tensor([1., 2., 4.])

    Read: rnn/attention.md#causal-self-attention-by-hand
    """
    raise NotImplementedError


def attend_with_cache(query, key, value, past_key, past_value):
    """Let new steps attend to themselves and to the steps in a KV cache.

    query and key, of shape (N, heads, T, D), and value, (N, heads, T, E), are those of
    T new steps, at least 1. past_key, (N, heads, P, D), and past_value, (N, heads, P,
    E), are those of the P steps right before them; P may be 0. Each new step attends to
    the P steps, to the new ones before it and to itself, with scores divided by the
    square root of D. Every function of PyTorch is allowed.

    Return three tensors: the averages of the values, (N, heads, T, E), and the keys and
    values for the next call, (N, heads, P + T, D) and (N, heads, P + T, E).

    >>> zeros, past_value = torch.zeros(1, 1, 2, 4), torch.tensor([[[[1.0], [3.0]]]])
    >>> new, value = torch.zeros(1, 1, 1, 4), torch.tensor([[[[8.0]]]])
    >>> mixed, keys, values = attend_with_cache(new, new, value, zeros, past_value)
    >>> mixed.flatten(), values.flatten()
    (tensor([4.]), tensor([1., 3., 8.]))

    Read: rnn/attention.md#the-causal-mask-is_causal-with-a-cache
    """
    raise NotImplementedError


def detect_changes(x, y):
    """Find the bug: this RNN runs, and learns nothing.

    Delete "raise NotImplementedError", run the file, and change one more line.

    x has shape (N, T, 1): N sequences of T random bits. y, of shape (N, T - 1, 1), is 1
    where a bit differs from the one before it in its sequence, else 0. Return the
    losses of 100 steps as a list of numbers.

    Read: rnn/README.md#pitfalls
    """
    raise NotImplementedError
    torch.manual_seed(0)
    rnn = nn.RNN(1, 16)
    linear = nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*rnn.parameters(), *linear.parameters()], lr=2e-2)
    loss_fn = nn.BCEWithLogitsLoss()

    losses = []
    for t in range(100):
        hs, _ = rnn(x)  # (N, T, 16)
        y_pred = linear(hs)[:, 1:]  # the first bit has none before it
        loss = loss_fn(y_pred, y)
        losses.append(loss.item())

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


# The checks. Each calls the answer with inputs of several kinds and sizes, and compares
# it with a computation of another kind. The paragraphs of its docstring are the hints.

# The tolerance where an answer may compute a constant as a tensor of its own, such as
# torch.tensor(2.0).log(). Such a constant is in float32, whatever the rest is in.
FLOAT32 = 1e-4


def check_encode_text(answer):
    """set(text) has each character once, and sorted() makes a list of it.

    "".join() makes a string of the list. A dictionary finds the index of each character
    faster than index().

    torch.tensor([]) is of floats: tell it the dtype.
    """
    for text in (
        "hello",
        "a",
        "To be, or not to be:\nthat is it.\n",
        "Zürich é z A0 ß",
        "",
    ):
        characters, indices = np.unique(list(text) or [""], return_inverse=True)
        wanted = torch.from_numpy(indices)[: len(text)]
        expect(answer, text, wanted=("".join(characters), wanted))


def check_bits_per_character(answer):
    """Cross entropy is the mean of -ln p, and log2 p is ln p / ln 2.

    The logarithm of a softmax is minus infinity where the probability is too small for
    a floating-point number. log_softmax() and cross_entropy() take both at once.

    cross_entropy() wants logits of shape (characters, V) and targets of shape
    (characters,). flatten(0, 1) makes one dimension of the first two.
    """
    for (logits,) in inputs("tnv", empty=False):
        targets = torch.randint(logits.shape[2], logits.shape[:2])
        wanted = mean_bits(logits, targets)
        expect(answer, logits, targets, wanted=wanted, tolerance=FLOAT32)
    logits = torch.tensor([[[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]]])
    for targets in torch.tensor([[[1, 0]], [[0, 2]]]):
        wanted = mean_bits(logits, targets)
        expect(answer, logits, targets, wanted=wanted, tolerance=FLOAT32)


def mean_bits(logits, targets):
    logits = logits.double().numpy() / math.log(2)
    chosen = np.take_along_axis(logits, targets.numpy()[..., None], 2)[..., 0]
    return np.array(np.mean(np.logaddexp2.reduce(logits, axis=2) - chosen))


def check_elman_states(answer):
    """A loop over x gives x[t], of shape (N, D). Each state needs the one before it.

    For a batch the product has the weight on the right: x[t] @ w_ih.T, (N, H).

    Collect the states in a list; torch.stack() makes one tensor of them.
    """
    for x, h, bias in inputs("tnd", "nh", "h", empty=False):
        rnn = nn.RNN(x.shape[2], h.shape[1], dtype=x.dtype).requires_grad_(False)
        rnn.bias_ih_l0.copy_(bias)
        rnn.bias_hh_l0.zero_()
        w_ih, w_hh, bias, _ = (weight.detach().clone() for weight in rnn.parameters())
        wanted, _ = rnn.double()(x.double(), h.double()[None])
        expect(answer, x, h, w_ih, w_hh, bias, wanted=wanted)


def check_gru_step(answer):
    """Two products serve all three parts: x @ w_ih.T + b_ih has shape (N, 3 * H).

    chunk(3, dim=1) cuts it into the parts of r, z and n. Do the same with h.

    n is the only part in which the two are not simply added: r multiplies what comes
    from h, bias included.
    """
    forbid_calls(answer, "GRU", "GRUCell", "gru", "gru_cell")
    for x, h in inputs("nd", "nh"):
        cell = nn.GRUCell(x.shape[1], h.shape[1], dtype=x.dtype).requires_grad_(False)
        weights = [weight.detach().clone() for weight in cell.parameters()]
        wanted = cell.double()(x.double(), h.double())
        expect(answer, x, h, *weights, wanted=wanted)


def check_last_states(answer):
    """The last real step of sequence i is hs[lengths[i] - 1, i].

    hs[a, b] with two tensors of indices picks one state for each pair of them. So it
    takes lengths - 1 and the numbers of the sequences: torch.arange(N).
    """
    for (hs,) in inputs("tnh", empty=False):
        lengths = torch.randint(1, len(hs) + 1, hs.shape[1:2])
        wanted = [hs[length - 1, i].tolist() for i, length in enumerate(lengths)]
        expect(answer, hs, lengths, wanted=np.array(wanted))
    hs = torch.randn(4, 1, 1)
    expect(answer, hs, torch.tensor([2]), wanted=hs[1].clone())

    gru = nn.GRU(3, 5).requires_grad_(False)
    sequences = [torch.randn(length, 3) for length in (2, 4, 1)]
    hs, _ = gru(nn.utils.rnn.pad_sequence(sequences))
    alone = torch.cat([gru(sequence)[1] for sequence in sequences])
    expect(answer, hs, torch.tensor([2, 4, 1]), wanted=alone)


def check_masked_loss(answer):
    """Make a mask of shape (T, N) that is True at the real steps.

    torch.arange(T)[:, None] < lengths

    nan times 0 is nan, in the backward pass as well. So take the padding out before you
    compute with it: y[mask] has shape (real steps, D).
    """
    for y_pred, y in inputs("tnd", "tnd", empty=False):
        lengths = torch.randint(1, len(y) + 1, y.shape[1:2])
        wanted, _ = mean_of_the_real(y_pred, y, lengths)
        expect(answer, y_pred, y, lengths, wanted=wanted)

    y_pred, y = torch.randn(2, 4, 3, 2)
    lengths = torch.tensor([4, 1, 2])
    wanted, gradient = mean_of_the_real(y_pred, y, lengths)
    for i, length in enumerate(lengths):
        y_pred[length:, i] = y[length:, i] = torch.nan
    got = answer(y_pred.requires_grad_(), y, lengths)
    compare(got, wanted.float(), "with nan in the padding your answer")
    if not got.requires_grad:
        raise Wrong("your answer has no gradient: is there a detach() in it?")
    (got,) = torch.autograd.grad(got, y_pred)
    compare(got, gradient.float(), "with nan in the padding the gradient in y_pred")


def mean_of_the_real(y_pred, y, lengths):
    """Return the loss, and its gradient in y_pred by the formula."""
    errors = torch.zeros_like(y, dtype=torch.float64)
    count = 0
    for i, length in enumerate(lengths):
        errors[:length, i] = y_pred[:length, i].double() - y[:length, i].double()
        count += errors[:length, i].numel()
    return errors.square().sum() / count, 2 * errors / count


def check_causal_attention(answer):
    """query @ key.mT has all scores, of shape (N, heads, T, T): row t, column s.

    Row t must not see the columns s > t, which are above the diagonal:
    torch.ones(T, T, dtype=torch.bool).triu(diagonal=1).

    masked_fill() with minus infinity before softmax makes their weights 0.
    """
    forbid_calls(answer, "scaled_dot_product_attention")
    for query, key, value in inputs("nhtd", "nhtd", "nhte"):
        wanted = attended(query, key, value)
        expect(answer, query, key, value, wanted=wanted, tolerance=FLOAT32)
    # Here the scores of the steps that must not be seen are the largest.
    query, value = torch.ones(1, 1, 3, 4), torch.randn(1, 1, 3, 2)
    key = torch.tensor([-500.0, -499.0, 500.0])[:, None].expand(1, 1, 3, 4)
    wanted = attended(query, key, value)
    expect(answer, query, key, value, wanted=wanted, tolerance=FLOAT32)


def check_attend_with_cache(answer):
    """The steps of the cache come first: torch.cat([past_key, key], dim=2).

    scaled_dot_product_attention() takes a mask of shape (T, P + T), which is True
    where a step may look. is_causal=True would align the first query with the first
    key.

    torch.ones(T, P + T, dtype=torch.bool).tril(diagonal=P)
    """
    shapes = "nhtd", "nhtd", "nhte", "nhpd", "nhpe"
    for query, key, value, past_key, past_value in inputs(*shapes):
        T, P = query.shape[2], past_key.shape[2]
        for t, p in (T, P), (1, P), (T, 0):
            new = [part[:, :, :t] for part in (query, key, value)]
            past = [part[:, :, :p] for part in (past_key, past_value)]
            keys = torch.cat([past[0], new[1]], dim=2)
            values = torch.cat([past[1], new[2]], dim=2)
            mixed = attended(new[0], keys, values).to(query.dtype)
            wanted = mixed, keys, values
            expect(answer, *new, *past, wanted=wanted, tolerance=FLOAT32)


def attended(query, key, value):
    """Return attention in float64, query by query. The last one sees all the keys."""
    query, key, value = query.double(), key.double(), value.double()
    T, total = query.shape[2], key.shape[2]
    mixed = query.new_zeros(*query.shape[:3], value.shape[3])
    for t in range(T):
        seen = total - T + 1 + t
        scores = torch.einsum("nhd,nhsd->nhs", query[:, :, t], key[:, :, :seen])
        weights = (scores / query.shape[3] ** 0.5).softmax(dim=2)
        mixed[:, :, t] = torch.einsum("nhs,nhse->nhe", weights, value[:, :, :seen])
    return mixed


def check_detect_changes(answer):
    """Which dimension of x does nn.RNN take for the time? See its documentation.

    By default it is the first one, and here that is the sequences: each sequence goes
    on with the state of the one before it, and no step knows the bit before its own.

    Either x and hs are transposed, or nn.RNN is told: batch_first=True.
    """
    x = torch.randint(2, (24, 40, 1)).float()
    losses = answer(x, (x[:, 1:] != x[:, :-1]).float())
    compare(type(losses), list, "the type of your answer")
    compare(len(losses), 100, "the length of your answer")
    compare(losses[0], 0.69, "the loss of step 1", tolerance=0.2)
    if not losses[-1] < 0.1:
        raise Wrong(f"the loss ends at {losses[-1]:.4g}, wanted less than 0.1")


def forbid_calls(answer, *names):
    code = getattr(inspect.unwrap(answer), "__code__", None)
    for name in names:
        if code and name in code.co_names:
            raise Wrong(
                f"your answer calls {name}(), which the exercise asks you not to do"
            )


# The judge. It is the same in all files of exercises.


SECONDS = 5  # that an answer may take


class Wrong(Exception):
    """Says in one line what is wrong with an answer."""


def inputs(*shapes, empty=True):
    """Yield tuples of floating-point tensors of these shapes, small ones first.

    A shape has a letter for each dimension: inputs("nd", "d") yields a matrix and a
    vector. Different letters have different sizes. In turn there are small whole
    numbers, zeros, one row, more rows of random numbers, the same in float64, views
    that are not contiguous, and no row at all unless empty=False.
    """
    letters = "".join(dict.fromkeys("".join(shapes)))
    small = range(2, 2 + len(letters))
    large = range(4 + len(letters), 4, -1)
    kinds = [("whole", small), ("zeros", small), ("whole", [1, *small])]
    kinds += [("random", large), ("float64", large), ("view", large)]
    if empty:
        kinds.append(("random", [0, *small]))
    for kind, sizes in kinds:
        size = dict(zip(letters, sizes))
        yield tuple(tensor(kind, [size[i] for i in shape]) for shape in shapes)


def tensor(kind, shape):
    if kind == "zeros":
        return torch.zeros(shape)
    if kind == "whole":
        return torch.randint(-4, 5, shape).float()
    if kind == "view":
        every_second = tuple(slice(None, None, 2) for _ in shape)
        return torch.randn([2 * size for size in shape])[every_second]
    return torch.randn(shape, dtype=torch.float64 if kind == "float64" else None)


def expect(answer, *arguments, wanted, dtype=None, tolerance=None):
    """Call the answer and compare what it returns with what is wanted.

    wanted is a tensor, an array, a number, a string, or a tuple of these. A tensor of
    floating-point numbers is wanted in the dtype of the first argument, or in dtype.
    Its elements may differ by 1000 eps of the largest, which is rounding, or by
    tolerance.
    """
    names = names_of_arguments(answer)
    names += [f"argument {i}" for i in range(len(names), len(arguments))]
    wanted = in_dtype(wanted, dtype or getattr(arguments[0], "dtype", None))
    before = copy.deepcopy(arguments)
    details = [f"{name} = {value!r}" for name, value in zip(names, before)]
    details.append(f"wanted: {wanted!r}")
    case = "for " + shorten(", ".join(map(described, names, before)))
    try:
        got = answer(*arguments)
        details.append(f"your answer: {got!r}")
        for name, old, new in zip(names, before, arguments):
            if not unchanged(old, new):
                raise Wrong(f"{case} you change {name} in place")
        compare(got, wanted, f"{case} your answer", tolerance)
    except Exception as error:
        error.add_note("\n".join(details))
        raise


def names_of_arguments(answer):
    try:
        return list(inspect.signature(answer).parameters)
    except (TypeError, ValueError):  # such as torch.outer
        return []


def in_dtype(wanted, dtype):
    if isinstance(wanted, tuple):
        return tuple(in_dtype(each, dtype) for each in wanted)
    if isinstance(wanted, (torch.Tensor, np.ndarray)):
        wanted = torch.as_tensor(wanted)
        if wanted.is_floating_point() and isinstance(dtype, torch.dtype):
            return wanted.to(dtype)
    return wanted


def unchanged(old, new):
    if isinstance(old, torch.Tensor):
        return old.shape == new.shape and old.isclose(new, 0, 0, equal_nan=True).all()
    if isinstance(old, np.ndarray):
        return np.array_equal(old, new)
    if isinstance(old, (list, tuple)):
        return len(old) == len(new) and all(map(unchanged, old, new))
    return True


def described(name, value):
    if isinstance(value, (list, tuple)) and any(map(torch.is_tensor, value)):
        return f"{name} of {len(value)} tensors"
    if not isinstance(value, (torch.Tensor, np.ndarray)):
        return f"{name} = {shorten(repr(value))}"
    words = f"{name} of shape {tuple(value.shape)}"
    if value.dtype in (torch.float16, torch.bfloat16, torch.float64):
        words += f" and {value.dtype}"
    if isinstance(value, torch.Tensor) and not value.is_contiguous():
        words += " that is not contiguous"
    return words


def compare(got, wanted, what, tolerance=None):
    """Raise Wrong if got is not what is wanted: by type, shape, dtype or elements."""
    if got is None and wanted is not None:
        raise Wrong(f"{what} is None: is there a return missing?")
    if isinstance(wanted, tuple):
        if not isinstance(got, (tuple, list)) or len(got) != len(wanted):
            raise Wrong(f"{what} is no list or tuple of {len(wanted)} values")
        for i in range(len(wanted)):
            compare(got[i], wanted[i], f"{what}[{i}]", tolerance)
    elif isinstance(wanted, torch.Tensor):
        if not isinstance(got, torch.Tensor):
            raise Wrong(f"{what} is of type {type(got).__name__}, wanted a tensor")
        if got.shape != wanted.shape:
            shapes = tuple(got.shape), tuple(wanted.shape)
            raise Wrong("{} has shape {}, wanted {}".format(what, *shapes))
        if got.dtype != wanted.dtype:
            raise Wrong(f"{what} has dtype {got.dtype}, wanted {wanted.dtype}")
        if got.device != wanted.device:
            raise Wrong(f"{what} is on {got.device}, wanted on {wanted.device}")
        compare_elements(got.detach(), wanted, what, tolerance)
    elif isinstance(wanted, float):
        if isinstance(got, bool) or not isinstance(got, (int, float)):
            raise Wrong(f"{what} is of type {type(got).__name__}, wanted a number")
        if not math.isclose(got, wanted, rel_tol=tolerance or 1e-6, abs_tol=1e-12):
            raise Wrong(f"{what} is {apart(got, wanted)}")
    elif type(got) is not type(wanted):
        kind = type(got).__name__
        raise Wrong(f"{what} is of type {kind}, wanted {shorten(repr(wanted))}")
    elif got != wanted:
        raise Wrong(f"{what} is {shorten(repr(got))}, wanted {shorten(repr(wanted))}")


def compare_elements(got, wanted, what, tolerance):
    bound = 0
    if wanted.is_floating_point() and wanted.numel():
        relative = tolerance or 1000 * torch.finfo(wanted.dtype).eps
        bound = relative * max(1, wanted.abs().max().item())
    differs = ~torch.isclose(got, wanted, rtol=0, atol=bound)
    if differs.any():
        index = tuple(differs.nonzero()[0].tolist())
        place = f"[{', '.join(map(str, index))}]" if index else ""
        numbers = apart(got[index].item(), wanted[index].item())
        raise Wrong(f"{what}{place} is {numbers}")


def apart(got, wanted):
    """Write two numbers with as many digits as it takes to tell them apart."""
    digits = 6 if f"{got:.6g}" != f"{wanted:.6g}" else 17
    return f"{got:.{digits}g}, wanted {wanted:.{digits}g}"


def shorten(text):
    return textwrap.shorten(text, 200, placeholder=" ...")


def verdict(name, answers):
    """Judge an exercise. answers has the variables of the reader's file.

    Returns the verdict in one line, and the input at which the answer fails, or "".
    """
    # Another answer may have changed these.
    torch.manual_seed(0)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    try:
        if name not in answers:
            raise Wrong(f"the file has no {name}")
        globals()[f"check_{name}"](answers[name])
        if not torch.is_grad_enabled():
            raise Wrong("your answer leaves autograd switched off")
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever an answer raises)
        frames = traceback.walk_tb(error.__traceback__)
        lines = [line for frame, line in frames if frame.f_globals is answers]
        message = str(error) if isinstance(error, Wrong) else in_one_line(error)
        if lines and (message == "NotImplementedError" or "ellipsis" in message):
            return "not yet", ""
        if lines:
            message = f"line {lines[-1]}: {message}"
        return f"wrong: {message}", "\n".join(getattr(error, "__notes__", []))
    return "right", ""


def in_one_line(error):
    message = shorten(str(error).strip().partition("\n")[0])
    return f"{type(error).__name__}: {message}".removesuffix(": ")


def load(file):
    """Execute a file. Returns its variables, and in one line what is wrong with it."""
    module = types.ModuleType("answers")
    sys.modules["answers"] = module
    try:
        with open(file, encoding="utf-8") as text:
            code = compile(text.read(), file, "exec")
        exec(code, vars(module))  # noqa: S102
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a file raises)
        return {}, in_one_line(error)
    return vars(module), None


def work(file, connection):
    """In a process of its own: load a file, then judge each exercise that is asked for.

    What takes too long is ended from outside of Python, with the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.reconfigure(line_buffering=True)
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, contextlib.suppress(EOFError):
        faulthandler.dump_traceback_later(60, exit=True, file=nowhere)
        torch.optim.SGD([torch.zeros(1)])  # the first optimizer imports for seconds
        answers, problem = load(file)
        connection.send(problem)
        while True:
            faulthandler.cancel_dump_traceback_later()
            name = connection.recv()
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=nowhere)
            connection.send(verdict(name, answers))


def start(file):
    """Start that process and return the connection with it."""
    spawn = multiprocessing.get_context("spawn")
    connection, other_end = spawn.Pipe()
    spawn.Process(target=work, args=(file, other_end), daemon=True).start()
    other_end.close()
    try:
        problem = connection.recv()
    except (EOFError, OSError):
        problem = "it ends Python, or takes longer than a minute"
    if problem:
        print(f"cannot load {file}: {problem}", file=sys.stderr)
        sys.exit(2)
    return connection


def judge(file, names):
    """Yield (name, verdict, details) for each exercise."""
    connection = None
    for name in names:
        connection = connection or start(file)
        begin = time.monotonic()
        try:
            connection.send(name)
            yield name, *connection.recv()
        except (EOFError, OSError):
            too_long = time.monotonic() - begin >= SECONDS
            why = f"no answer after {SECONDS} seconds" if too_long else "it ends Python"
            yield name, f"wrong: {why}", ""
            connection = None


def main():
    checks = [name for name in globals() if name.startswith("check_")]
    names = [name.removeprefix("check_") for name in checks]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exercise", nargs="?", choices=names, metavar="exercise")
    parser.add_argument("--hint", action="count", default=0, help="twice for two hints")
    parser.add_argument(
        "--answers", default=__file__, help="judge those of another file"
    )
    args = parser.parse_args()
    if args.hint and not args.exercise:
        parser.error("--hint needs the name of an exercise")

    right = 0
    chosen = [args.exercise] if args.exercise else names
    for name, words, details in judge(args.answers, chosen):
        print(f"{name:22s}{words}", flush=True)
        right += words == "right"
        if args.exercise and details:
            print(f"\n{details}")

    if args.exercise:
        hints = inspect.getdoc(globals()[f"check_{args.exercise}"]).split("\n\n")
        for hint in hints[: args.hint]:
            print(f"\nHint: {hint}")
    else:
        print(f"{right} of {len(names)} right")
    sys.exit(right < len(chosen))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
