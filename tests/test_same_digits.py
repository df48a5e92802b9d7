"""Every row of the table of same_digits.py is as promised, and could be otherwise."""

import re

import numpy as np
import pytest
import same_digits
import torch
from collection import DEVICES
from same_digits import BITS, DIFFERENT, ROUNDING, TOLERANCE, difference, holds

GROUPS = [
    same_digits.compare_seeds,
    same_digits.compare_sums,
    same_digits.compare_gradients,
    same_digits.compare_processes,
    same_digits.compare_compiled,
]


@pytest.fixture(autouse=True)
def settings_are_put_back():
    yield
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("compare", GROUPS)
def test_what_is_promised_holds(compare):
    rows = list(compare())
    assert rows
    for done, promise, found in rows:
        assert holds(promise, found), (
            f"{done}: {promise}, but the difference is {found}"
        )


@pytest.mark.parametrize("device", ["cpu", *DEVICES[1:]])
def test_what_is_promised_holds_on_every_device(device):
    if not getattr(torch, device).is_available():
        pytest.skip(f"there is no {device} here")
    for done, promise, found in same_digits.compare_devices(device):
        assert holds(promise, found), (
            f"{done}: {promise}, but the difference is {found}"
        )


# The yardstick


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ([1.0, -4.0], [1.0, -4.0], 0),
        ([1.0, -4.0], [1.5, -4.0], 0.125),
        ([1.0, -4.0], [1.0, 4.0], 2),
        ([1.0], [1 + 2**-23], 2**-23),
    ],
)
def test_difference(one, other, expected):
    assert difference(torch.tensor(one), torch.tensor(other)) == expected
    assert difference(torch.tensor(one), np.float32(other)) == expected


@pytest.mark.parametrize(
    "found, kept",
    [
        (0.0, [BITS, ROUNDING]),
        (2**-23, [ROUNDING]),
        (TOLERANCE, [ROUNDING]),
        (2 * TOLERANCE, [DIFFERENT]),
        (1.0, [DIFFERENT]),
        (float("nan"), []),
    ],
)
def test_promises(found, kept):
    promises = [BITS, ROUNDING, DIFFERENT]
    assert [promise for promise in promises if holds(promise, found)] == kept


def test_gradient_is_that_of_autograd():
    x, y, w1, w2 = [torch.tensor(array).double() for array in same_digits.make_arrays()]
    w1.requires_grad_()
    loss = ((x @ w1).relu() @ w2 - y).square().sum()
    (expected,) = torch.autograd.grad(loss, w1)
    found = same_digits.gradient(x, y, w1.detach(), w2)
    torch.testing.assert_close(found, expected)


def test_rounding_switches_no_hidden_unit_on_or_off():
    """Else a gradient could differ by more than rounding: ReLU's has a jump at 0."""
    x, _, w1, _ = same_digits.make_arrays()
    exact = x.astype(np.float64) @ w1.astype(np.float64)
    error = np.abs(x @ w1 - exact).max()
    assert np.abs(exact).min() > 100 * error


# What is said to be done is done, and what goes wrong is seen


def test_gradients_are_computed_in_the_ways_that_the_rows_name(monkeypatch):
    calls = []
    gradient = same_digits.gradient

    def recorded(x, y, w1, w2):
        threads = torch.get_num_threads()
        deterministic = torch.are_deterministic_algorithms_enabled()
        calls.append((type(x).__name__, str(x.dtype), len(x), threads, deterministic))
        return gradient(x, y, w1, w2)

    monkeypatch.setattr(same_digits, "gradient", recorded)
    list(same_digits.compare_gradients())
    usual = ("Tensor", "torch.float32", 64, 1, False)
    assert calls == [
        usual,
        usual,
        (*usual[:4], True),
        (*usual[:3], 2, False),
        (*usual[:2], 32, 1, False),
        (*usual[:2], 32, 1, False),
        ("ndarray", "float32", 64, 1, False),
        ("Tensor", "torch.float64", 64, 1, False),
        ("Tensor", "torch.bfloat16", 64, 1, False),
    ]


def test_other_processes_are_started_without_fork():
    assert same_digits.process_context().get_start_method() in ("forkserver", "spawn")


def test_an_epoch_has_every_sample_once():
    order, noise = same_digits.load(num_workers=0)
    assert sorted(order.tolist()) == list(range(100)) != order.tolist()
    assert len(set(noise.tolist())) > 90


def broken(compare):
    return [done for done, promise, found in compare() if not holds(promise, found)]


def test_a_missing_seed_would_be_seen(monkeypatch):
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)
    assert broken(same_digits.compare_seeds) == ["the same seed"]


def test_a_gradient_that_varies_would_be_seen(monkeypatch):
    """By an eps where bits are promised, by a 10,000th where rounding is."""
    gradient = same_digits.gradient

    def varied(factor):
        count = iter(range(100))

        def replacement(*network):
            return gradient(*network) * (1 + factor * next(count))

        return replacement

    monkeypatch.setattr(same_digits, "gradient", varied(2**-23))
    assert broken(same_digits.compare_gradients) == [
        "computed again",
        "deterministic algorithms",
    ]
    monkeypatch.setattr(same_digits, "gradient", varied(1e-4))
    assert broken(same_digits.compare_gradients)[2:] == [
        "two threads",
        "two halves of the batch",
        "NumPy",
        "float64",
    ]


def test_the_table_is_printed_with_broken_promises(monkeypatch, capsys):
    rows = {
        "compare_seeds": ("one", BITS, 0.0),
        "compare_sums": ("two", ROUNDING, 1.25e-7),
        "compare_gradients": ("three", DIFFERENT, 1.5),
        "compare_processes": ("four", BITS, 0.5),
    }
    for name, row in rows.items():
        monkeypatch.setattr(same_digits, name, lambda row=row: [row])
    monkeypatch.setattr("sys.argv", [""])
    same_digits.main()
    lines = capsys.readouterr().out.splitlines()
    printed = [re.split("  +", line.strip()) for line in lines if line[0] == " "]
    assert printed == [
        ["one", "same bits", "0.0e+00"],
        ["two", "same to rounding", "1.2e-07"],
        ["three", "different", "1.5e+00"],
        ["four", "same bits", "5.0e-01", "but not here"],
    ]


def test_a_missing_compiler_is_told_in_one_line(monkeypatch, capsys):
    def compile_nothing():
        raise RuntimeError("No compiler\nand more")

    monkeypatch.setattr("sys.argv", ["", "--compile"])
    monkeypatch.setattr(same_digits, "compare_compiled", compile_nothing)
    with pytest.raises(SystemExit, match="2"):
        same_digits.main()
    captured = capsys.readouterr()
    assert captured.err.endswith("is there a C++ compiler? No compiler\n")
    assert not captured.out
