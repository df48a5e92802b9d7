"""kv_cache.py: a cache changes nothing but the time, and the model is char_gpt.py's."""

import re
import sys
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import char_gpt
import char_rnn
import kv_cache
import pytest
import torch
from collection import outcome
from torch.nn.functional import scaled_dot_product_attention

V, T, D, BLOCKS = 7, 12, 16, 3
BOUND = 1e-12  # float64, logits of about 1: rounding is some 1e-15


@pytest.fixture
def models():
    """The model of kv_cache.py, and that of char_gpt.py with the same weights."""
    torch.manual_seed(1)
    model = kv_cache.CharGPT(V, T, D, heads=4, blocks=BLOCKS).double().eval()
    expected = char_gpt.CharGPT(V, T, D, heads=4, blocks=BLOCKS).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))  # no bias is 0, no norm 1
    expected.load_state_dict(model.state_dict())
    return model.requires_grad_(False), expected.requires_grad_(False)


def in_pieces(model, x, sizes):
    """Return the logits of all positions, given to the model piece by piece."""
    found, cache = [], None
    for piece in x.split(sizes, dim=1):
        logits, cache = model(piece, cache)
        found.append(logits)
    return torch.cat(found, dim=1)


# One by one; a prompt, then one by one; several prompts.
SIZES = [[1] * T, [5] + [1] * (T - 5), [3, 1, 4, 4], [T]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_logits_with_cache_are_those_of_char_gpt(sizes, models):
    model, expected = models
    x = torch.randint(V, (3, T))
    assert (in_pieces(model, x, sizes) - expected(x)).abs().max() < BOUND


def test_a_cache_can_be_used_twice(models):
    """Two texts that begin alike can share what is known of their beginning."""
    model, expected = models
    x = torch.randint(V, (1, T))
    _, cache = model(x[:, :5])
    model(x[:, 5:].flip(1), cache)
    logits, _ = model(x[:, 5:], cache)
    assert (logits - expected(x)[:, 5:]).abs().max() < BOUND


def positions_stay_at_zero(model, monkeypatch):
    def hook(module, args):
        return args[0] - args[0][0]

    model.position.register_forward_pre_hook(hook)


def caches_of_blocks_exchanged(model, monkeypatch):
    forward = model.forward

    def exchanged(x, cache=None):
        return forward(x, cache and cache[::-1])

    monkeypatch.setattr(model, "forward", exchanged)


def keys_are_lost(model, monkeypatch):
    """The cache has the right length, but holds zeros for all but the new keys."""

    def hook(module, args, output):
        mixed, (key, value) = output
        key = key.clone()
        key[:, :, : -args[0].shape[1]] = 0
        return mixed, (key, value)

    for block in model.blocks:
        block.attention.register_forward_hook(hook)


def keys_and_values_exchanged(model, monkeypatch):
    def hook(module, args, output):
        mixed, (key, value) = output
        return mixed, (value, key)

    for block in model.blocks:
        block.attention.register_forward_hook(hook)


def mask_counted_from_the_first_key(mask):
    """What is_causal=True means where there are more keys than queries."""
    return torch.ones_like(mask).tril()


def mask_replaced(model, monkeypatch, change):
    def attend(query, key, value, attn_mask):
        return scaled_dot_product_attention(query, key, value, change(attn_mask))

    monkeypatch.setattr(kv_cache, "scaled_dot_product_attention", attend)


FAULTS = {
    "positions stay at 0": positions_stay_at_zero,
    "caches of blocks exchanged": caches_of_blocks_exchanged,
    "keys are lost": keys_are_lost,
    "keys and values exchanged": keys_and_values_exchanged,
    "is_causal": partial(mask_replaced, change=mask_counted_from_the_first_key),
    "no mask": partial(mask_replaced, change=torch.ones_like),
    "mask off by one": partial(mask_replaced, change=lambda mask: mask.roll(1, 1)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault, models, monkeypatch):
    model, expected = models
    x = torch.randint(V, (3, T))
    FAULTS[fault](model, monkeypatch)
    assert (in_pieces(model, x, [3, 1, 4, 4]) - expected(x)).abs().max() > 1e-3


def windows(length):
    """Return where the window begins and ends for each character that is drawn."""
    begin = 0
    for end in range(1, length + 1):
        if end - begin == T + 1:
            begin = end - T // 2
        yield begin, end


@pytest.mark.parametrize("use_cache", [True, False])
def test_text_is_drawn_from_char_gpt_over_several_windows(use_cache, models):
    model, expected = models
    length = 3 * T + 1
    text, logits, times = kv_cache.generate(model, length, use_cache)
    assert text.shape == times.shape == (length,) and len(set(text.tolist())) > 3
    assert (times > 0).all()

    read = torch.tensor([[0, *text]])
    torch.manual_seed(0)
    for i, (begin, end) in enumerate(windows(length)):
        correct = expected(read[:, begin:end])[0, -1]
        assert (logits[i] - correct).abs().max() < BOUND
        assert correct.softmax(0).multinomial(1) == text[i]


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_cache_saves_all_but_the_last_character(use_cache, models):
    """Counted are the characters that pass through the model at each step."""
    model, _ = models
    counts = []

    def hook(module, args):
        counts.append(args[0].numel())

    model.embedding.register_forward_pre_hook(hook)
    kv_cache.generate(model, 2 * T, use_cache)
    expected, before = [], 0
    for begin, end in windows(2 * T):
        goes_on = use_cache and begin == before
        expected.append(1 if goes_on else end - begin)
        before = begin
    assert counts == expected
    if use_cache:
        assert sum(counts) == 2 * T + 2 * (T // 2 - 1)  # two windows were begun anew


def test_dropout_is_off(models):
    model, _ = models
    _, expected, _ = kv_cache.generate(model.eval(), T, True)
    _, found, _ = kv_cache.generate(model.train(), T, True)
    assert torch.equal(found, expected)


# The program


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, and with files that are none."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "words.txt").write_text("words", encoding="utf-8")
    (folder / "folder").mkdir()

    weights = char_gpt.CharGPT(V, T, D).state_dict()
    saved = {"vocabulary": "abcdefg", "weights": weights}
    char_gpt.save(saved, folder / "model.pt")
    torch.save(saved | {"vocabulary": "abc"}, folder / "abc.pt")
    torch.save(saved | {"weights": {}}, folder / "no weights.pt")
    torch.save([1, 2], folder / "list.pt")
    cell = char_rnn.CharRNN("lstm", V).state_dict()
    torch.save({"cell": "lstm"} | saved | {"weights": cell}, folder / "lstm.pt")
    torch.save(saved | {"more": Fraction(1, 2)}, folder / "object.pt")
    broken = weights["linear.bias"].clone()
    broken[0] = torch.nan
    weights = weights | {"linear.bias": broken}
    torch.save(saved | {"weights": weights}, folder / "nan.pt")

    # A page that never reached the disk: PyTorch would take the zeros for weights.
    whole = (folder / "model.pt").read_bytes()
    part = weights["position.weight"].numpy().tobytes()
    assert part in whole
    (folder / "zeros.pt").write_bytes(whole.replace(part, bytes(len(part))))
    (folder / "half.pt").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.mark.parametrize("sizes", [{}, {"T": T, "D": D}], ids=str)
def test_a_file_of_char_gpt_gives_the_same_logits(sizes, tmp_path):
    expected = char_gpt.CharGPT(V, **sizes).eval()
    saved = {"vocabulary": "abcdefg", "weights": expected.state_dict()}
    char_gpt.save(saved, tmp_path / "model.pt")
    model = kv_cache.load(tmp_path / "model.pt").double().eval()
    assert model.T == expected.T
    x = torch.randint(V, (1, model.T))
    with torch.no_grad():
        assert (model(x)[0] - expected.double()(x)).abs().max() < BOUND


NOT_A_MODEL = "is not a model that char_gpt.py has saved"
FOREIGN = ["words.txt", "folder", "abc.pt", "no weights.pt", "list.pt", "lstm.pt"]
FOREIGN += ["object.pt", "nan.pt", "zeros.pt", "half.pt"]
REFUSED = [("missing", "there is no file"), *((name, NOT_A_MODEL) for name in FOREIGN)]


@pytest.mark.parametrize("name, reason", REFUSED)
def test_what_is_no_model_is_refused(name, reason, folder):
    argv = ["--model", str(folder / name)]
    code, out, err = outcome("rnn/kv_cache.py", argv=argv)
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]
    assert err.startswith("usage: ") and ": error: " in line
    assert str(folder / name) in line and reason in line


@pytest.fixture
def measured(monkeypatch):
    """Let main() measure each way just once; what it gave and got is put in a list."""
    calls = []

    def measure(model, length, use_cache):
        calls.append((model, kv_cache.generate(model, length, use_cache)))
        return calls[-1][1]

    monkeypatch.setattr(kv_cache, "measure", measure)
    return calls


def test_a_saved_model_is_used(folder, measured, monkeypatch):
    path = folder / "model.pt"
    monkeypatch.setattr(sys, "argv", ["kv_cache.py", "--model", str(path)])
    kv_cache.main()
    weights = torch.load(path, weights_only=True)["weights"]
    for model, _ in measured:
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, weights[name].double()), name


def test_times_are_milliseconds(models, monkeypatch):
    clock = iter([0.0, 0.25, 10.0, 10.5])
    fake = SimpleNamespace(perf_counter=lambda: next(clock))
    monkeypatch.setattr(kv_cache, "time", fake)
    _, _, times = kv_cache.generate(models[0], 2, True)
    assert times.tolist() == [250, 500]


def test_times_are_the_shortest_of_all_runs(models, monkeypatch):
    runs = iter([[3.0, 1.0, 9.0], [1.0, 2.0, 9.0], [2.0, 3.0, 8.0]])

    def generate(model, length, use_cache):
        return torch.tensor([4]), torch.eye(2), torch.tensor(next(runs))

    monkeypatch.setattr(kv_cache, "generate", generate)
    text, logits, times = kv_cache.measure(models[0], 3, True)
    assert times.tolist() == [1, 1, 8]
    assert text == 4 and torch.equal(logits, torch.eye(2))


def test_picture_and_output_show_what_was_measured(
    folder, measured, monkeypatch, capsys, tmp_path
):
    figures = []

    def keep(*args, draw=kv_cache.draw):
        figures.append(draw(*args))
        return figures[-1]

    monkeypatch.setattr(kv_cache, "draw", keep)
    argv = ["--model", str(folder / "model.pt"), "--plot", str(tmp_path / "a.png")]
    monkeypatch.setattr(sys, "argv", ["kv_cache.py", *argv])
    kv_cache.main()

    same, *rows, memory = capsys.readouterr().out.splitlines()
    (_, slow_logits, slow), (_, fast_logits, fast) = [result for _, result in measured]
    difference = (slow_logits - fast_logits).abs().max().item()
    assert difference < BOUND
    assert "True" in same and f"{difference:.1e}" in same
    assert f"{2 * BLOCKS * T * D * 8:,} bytes" in memory

    size = T // 4
    assert len(rows) == 6
    for i, row in enumerate(rows):
        begin, end, *both = map(float, re.findall(r"[\d.]+", row))
        assert (begin, end) == (i * size + 1, (i + 1) * size)
        for times, shown in zip((slow, fast), both, strict=True):
            part = sorted(times[i * size : (i + 1) * size].tolist())
            assert shown == pytest.approx(part[(size - 1) // 2], abs=0.006)

    lines = figures[0].axes[0].lines[:2]
    assert [line.get_label() for line in lines] == ["without cache", "with cache"]
    for times, line in zip((slow, fast), lines, strict=True):
        assert line.get_ydata().tolist() == times.tolist()


def test_a_text_that_differs_is_told(folder, monkeypatch, capsys):
    def differs(model, length, use_cache):
        text = torch.full((length,), int(use_cache))
        return text, torch.zeros(length, 2) + 0.25 * use_cache, torch.ones(length)

    monkeypatch.setattr(kv_cache, "measure", differs)
    argv = ["kv_cache.py", "--model", str(folder / "model.pt")]
    monkeypatch.setattr(sys, "argv", argv)
    kv_cache.main()
    first = capsys.readouterr().out.splitlines()[0]
    assert "False" in first and "2.5e-01" in first
