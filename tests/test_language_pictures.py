"""The pictures of the language models show what train() measured, and what heads see.

The attention that is computed by hand gives the outputs of char_gpt.py's own layers.
"""

import sys
from types import SimpleNamespace

import char_gpt
import char_rnn
import draw_language_models
import draw_text_attention
import pytest
import torch
from collection import outcome

LINE = 'to "be" or not'


def figures_of(module, monkeypatch):
    """Return a list to which the module's main() adds each figure that it draws."""
    figures = []

    def keep(*args, draw=module.draw):
        figures.append(draw(*args))
        return figures[-1]

    monkeypatch.setattr(module, "draw", keep)
    return figures


def call_main(module, monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, argv)])
    before = torch.get_num_threads()
    try:
        module.main()
    finally:
        torch.set_num_threads(before)


# Learning curves


@pytest.mark.parametrize("name", draw_language_models.MODELS)
def test_curve_is_what_train_measured_without_the_time_of_measuring(name, monkeypatch):
    """Two steps take 1 and 2 seconds, the measurements after them 9 and 88."""
    clock = iter([0, 1, 10, 12, 100])
    fake = SimpleNamespace(process_time=lambda: next(clock))
    monkeypatch.setattr(draw_language_models, "time", fake)
    which = draw_language_models.MODELS[name]
    found = draw_language_models.learning_curve(2, *which)

    text = char_rnn.read_text(None)
    vocabulary = "".join(sorted(set(text)))
    chars = char_rnn.encode(text, vocabulary)
    torch.manual_seed(0)
    if name == "GPT":
        module, model = char_gpt, char_gpt.CharGPT(len(vocabulary))
    else:
        module, model = char_rnn, char_rnn.CharRNN(name.lower(), len(vocabulary))
    history = module.train(model, chars[:-10_000], chars[-10_000:], 2)

    steps, seconds, bits = zip(*found)
    assert (steps, seconds) == ((1, 2), (1, 3))
    assert bits == pytest.approx(history, rel=1e-4)


CURVES = {
    "RNN": [(1, 0.1, 6.0), (50, 2.0, 2.5), (100, 4.0, 2.75)],
    "GRU": [(1, 0.2, 5.5), (50, 3.0, 2.25), (100, 6.0, 2.125)],
    "LSTM": [(1, 0.3, 6.5), (50, 4.0, 2.375), (100, 8.0, 2.0)],
    "GPT": [(1, 0.5, 5.0), (60, 30.0, 3.5), (120, 60.0, 1.875)],
}


def test_picture_and_output_show_the_curves(monkeypatch, capsys, tmp_path):
    curves = iter(CURVES.values())
    monkeypatch.setattr(
        draw_language_models, "learning_curve", lambda *args: next(curves)
    )
    figures = figures_of(draw_language_models, monkeypatch)
    path = tmp_path / "a.png"
    call_main(draw_language_models, monkeypatch, "--plot", path)
    assert path.exists()

    rows = capsys.readouterr().out.splitlines()
    for row, (name, curve) in zip(rows, CURVES.items(), strict=True):
        step, seconds, bits = min(curve, key=lambda measured: measured[2])
        numbers = [float(w) for w in row.split() if w.replace(".", "").isdigit()]
        assert row.startswith(name) and numbers == [bits, step, seconds]

    by_step, by_second = figures[0].axes
    legend = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert legend == list(CURVES)
    for place, axes in enumerate((by_step, by_second)):
        for line, curve in zip(axes.lines, CURVES.values(), strict=True):
            assert list(line.get_xdata()) == [row[place] for row in curve[1:]]
            assert list(line.get_ydata()) == [row[2] for row in curve[1:]]
        colors = [line.get_color() for line in axes.lines]
        assert len(set(colors)) == len(CURVES)
    assert [line.get_color() for line in by_step.lines] == colors


# Attention to a line of text


@pytest.fixture
def model():
    """A model that has left its initial weights behind: its attention is not even."""
    torch.manual_seed(1)
    model = char_gpt.CharGPT(len(set(LINE)))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


@pytest.fixture
def x():
    return char_gpt.encode(LINE, "".join(sorted(set(LINE))))


@pytest.fixture
def file(model, tmp_path):
    checkpoint = {
        "vocabulary": "".join(sorted(set(LINE))),
        "weights": model.state_dict(),
    }
    char_gpt.save(checkpoint, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@torch.no_grad()
def test_attention_by_hand_gives_the_output_of_every_layer(model, x):
    model.double()
    calls = []
    for block in model.blocks:
        block.attention.register_forward_hook(
            lambda layer, args, output: calls.append((layer, args[0], output))
        )
    model.train()  # looking, too, has to turn dropout off by itself
    attention = draw_text_attention.attention_of(model, x)
    calls.clear()
    model.eval()
    model(x[None])

    assert attention.shape == (3, 4, len(LINE), len(LINE))
    assert attention.triu(diagonal=1).count_nonzero() == 0
    for weights, (layer, h, output) in zip(attention, calls, strict=True):
        value = layer.split(layer.qkv(h).chunk(3, dim=2)[2])
        mixed = (weights @ value).transpose(1, 2).flatten(start_dim=2)
        assert (layer.linear(mixed) - output).abs().max() < 1e-12
    even = torch.ones(len(LINE), len(LINE)).tril().double()
    even /= even.sum(dim=1, keepdim=True)
    assert ((attention - even).abs().amax(dim=(2, 3)) > 0.05).all()


def test_picture_and_output_show_the_attention(
    file, model, x, monkeypatch, capsys, tmp_path
):
    figures = figures_of(draw_text_attention, monkeypatch)
    argv = ["--model", file, "--line", LINE, "--block", 3, "--head", 2]
    path = tmp_path / "a.png"
    call_main(draw_text_attention, monkeypatch, *argv, "--plot", path)
    assert path.exists()

    attention = draw_text_attention.attention_of(model, x)
    axes, _ = figures[0].axes
    (image,) = axes.images
    assert torch.equal(torch.from_numpy(image.get_array().data), attention[2, 1])
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        chars = [label.get_text() for label in labels]
        assert len(chars) == len(LINE)
        assert all(a == b for a, b in zip(chars, LINE) if b != " ")

    rows = capsys.readouterr().out.splitlines()
    heads = [(block, head) for block in range(3) for head in range(4)]
    for row, (block, head) in zip(rows, heads, strict=True):
        weights = attention[block, head].double().numpy()
        T = len(LINE)
        one = sum(weights[i, i - 1] for i in range(1, T)) / (T - 1)
        two = sum(weights[i, i - 2] for i in range(2, T)) / (T - 2)
        shares = {
            char: sum(weights[:, i].sum() for i in range(T) if LINE[i] == char) / T
            for char in LINE
        }
        most = max(shares, key=shares.get)
        assert row.startswith(f"block {block + 1} head {head + 1} ")
        words = row.split(" back ")
        assert float(words[1].split()[0]) == pytest.approx(one, abs=0.006)
        assert float(words[2].split()[0]) == pytest.approx(two, abs=0.006)
        assert f" {most!a} " in row
        assert float(row.split()[-1]) == pytest.approx(shares[most], abs=0.006)


def look(*argv):
    return outcome("rnn/draw_text_attention.py", argv=map(str, argv))


@pytest.mark.parametrize("content", [None, b"no model", "damaged"])
def test_a_file_that_is_no_model_is_refused(content, file, tmp_path):
    path = tmp_path / "other.pt"
    if content == "damaged":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
    if content is not None:
        path.write_bytes(content)
    code, out, err = look("--model", path, "--line", LINE)
    assert (code, out) == (2, "")
    assert str(path) in err.splitlines()[-1]


@pytest.mark.parametrize("line", ["to be wise", "to", 65 * "o", ""])
def test_a_line_that_cannot_be_read_is_refused(line, file):
    code, out, err = look("--model", file, "--line", line)
    assert (code, out) == (2, "") and "argument --line: " in err.splitlines()[-1]


@pytest.mark.parametrize("line", ["not", 64 * "o"])
def test_the_shortest_and_the_longest_line(line, file):
    code, out, err = look("--model", file, "--line", line)
    assert (code, err) == (0, "") and "nan" not in out
