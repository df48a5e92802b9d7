"""Recurrent networks: compared with torch's modules, single steps and NumPy."""

import contextlib
import io
import itertools
import os
import re
import sys
from unittest import mock

import char_rnn
import generate_text
import numpy as np
import pytest
import torch
import variable_lengths
from collection import execute, outcome
from torch.nn.utils import get_total_norm
from torch.optim.optimizer import register_optimizer_step_pre_hook

each_cell = pytest.mark.parametrize("cell", char_rnn.CELLS)

# elman_rnn.py


def test_elman_equals_nn_rnn_in_outputs_and_all_gradients():
    torch.manual_seed(1)
    by_hand = execute("rnn/elman_rnn.py")["ElmanRNN"](3, 5).double()
    from_nn = torch.nn.RNN(3, 5).double()
    weights = [by_hand.input_linear.weight, by_hand.hidden_linear.weight]
    weights += [by_hand.input_linear.bias, by_hand.hidden_linear.bias]
    for one, other in zip(weights, from_nn.parameters(), strict=True):
        other.data.copy_(one.data)
    x = torch.randn(9, 4, 3).double().requires_grad_()
    h0 = torch.randn(4, 5).double().requires_grad_()
    upstream, last_upstream = torch.randn(9, 4, 5), torch.randn(4, 5)

    def results(output, h_n, weights):
        loss = (output * upstream).sum() + (h_n * last_upstream).sum()
        return output, h_n, *torch.autograd.grad(loss, [x, h0, *weights])

    found = results(*by_hand(x, h0), weights)
    output, h_n = from_nn(x, h0[None])
    expected = results(output, h_n[0], from_nn.parameters())
    torch.testing.assert_close(found, expected)


# char_rnn.py: the text, the loss, the training

WORDS = ["the", "state", "goes", "on", "from", "piece", "to", "été,", "hiver", ""]
TEXT = " ".join(np.random.default_rng(0).choice(WORDS, 1000))[:4000]
VOCABULARY = "".join(sorted(set(TEXT)))
CHARS = char_rnn.encode(TEXT, VOCABULARY)


def small(cell="lstm"):
    torch.manual_seed(0)
    return char_rnn.CharRNN(cell, len(VOCABULARY), E=8, H=16)


def bits_of_single_steps(model, chars):
    """Return bits per character, one character after the other, by NumPy in float64."""
    model = model.double().eval()
    total, state = 0.0, None
    for x, y in itertools.pairwise(chars):
        with torch.no_grad():
            logits, state = model(x.view(1, 1), state)
        logits = logits.view(-1).numpy()
        total += np.log2(np.exp(logits - logits[y]).sum())
    model.float()
    return total / (len(chars) - 1)


def test_pieces_are_columns_of_the_text_and_what_comes_one_character_later():
    """One column below the other, they are the text again, from its beginning on."""
    pieces = char_rnn.cut(CHARS)
    assert {inputs.shape for inputs, _ in pieces[:-1]} == {(64, 32)}
    for part in (0, 1):
        columns = torch.cat([piece[part] for piece in pieces]).T
        length = columns.numel()
        assert len(CHARS) - 33 < length < len(CHARS)
        assert torch.equal(columns.flatten(), CHARS[part:][:length])


def test_training_stops_when_it_gets_worse_and_keeps_the_best_weights():
    """In random letters there is nothing to learn, and much to memorize."""
    model, chars = small(), torch.randint(8, (1000,))
    history = char_rnn.train(model, chars[:900], chars[900:], steps=2000)
    assert len(history) < 2000 / 50
    assert history.index(min(history)) == len(history) - 4
    bits = bits_of_single_steps(model, chars[900:])
    assert bits == pytest.approx(min(history), rel=1e-5)


@each_cell
def test_state_is_carried_but_detached_until_the_text_begins_anew(cell):
    model, pieces = small(cell), char_rnn.cut(CHARS)
    calls = []

    def keep(model, args, result):
        if model.training:
            calls.append((*args, result[1]))

    model.register_forward_hook(keep)
    char_rnn.train(model, CHARS, CHARS[:100], steps=2 * len(pieces))
    assert len(calls) == 2 * len(pieces)
    for i, (inputs, state, _) in enumerate(calls):
        assert torch.equal(inputs, pieces[i % len(pieces)][0])
        if i % len(pieces) == 0:
            assert state is None
        else:
            torch.testing.assert_close(state, calls[i - 1][2], rtol=0, atol=0)
            assert all(part.grad_fn is None for part in state)


def test_gradients_are_clipped_when_the_optimizer_takes_them():
    model, norms = small(), []
    with torch.no_grad():
        model.linear.weight *= 100  # so that the loss is large, and its gradient

    def look(optimizer, args, kwargs):
        norms.append(get_total_norm([w.grad for w in model.parameters()]).item())

    hook = register_optimizer_step_pre_hook(look)
    char_rnn.train(model, CHARS, CHARS[:100], steps=2)
    hook.remove()
    assert norms == pytest.approx([1, 1], rel=1e-3)


# char_rnn.py and generate_text.py: drawing, and files (more of them: test_data.py)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text and a model, and with files that are neither."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "words.txt").write_text(TEXT, encoding="utf-8")
    (folder / "short.txt").write_text("too short")
    (folder / "latin1.txt").write_text("été " * 500, encoding="latin-1")

    weights = char_rnn.CharRNN("lstm", len(VOCABULARY)).state_dict()
    saved = {"cell": "lstm", "vocabulary": VOCABULARY, "weights": weights}
    char_rnn.save(saved, folder / "model.pt")
    torch.save(saved | {"cell": "gru"}, folder / "gru.pt")
    bias = weights.pop("linear.bias")
    torch.save(saved, folder / "no bias.pt")
    weights["linear.bias"] = bias * torch.nan
    torch.save(saved, folder / "nan.pt")

    # A page that never reached the disk: PyTorch would take the zeros for weights.
    whole = (folder / "model.pt").read_bytes()
    part = weights["rnn.weight_ih_l0"].numpy().tobytes()
    assert part in whole
    (folder / "zeros.pt").write_bytes(whole.replace(part, bytes(len(part))))
    return folder


def train(folder, *options):
    """Train for two steps; return (exit status, stdout, stderr)."""
    options = "--steps", 2, "--text", folder / "words.txt", *options
    return outcome("rnn/char_rnn.py", argv=map(str, options))


def generate(*options):
    return outcome("rnn/generate_text.py", argv=map(str, options))


def assert_refused(done, *names):
    """One line, after that on the usage, names what is wrong; nothing else is said."""
    code, out, err = done
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]
    assert err.startswith("usage: ") and ": error: " in line
    assert all(str(name) in line for name in names), line


@pytest.mark.parametrize("name", ["missing", "short.txt", "latin1.txt"])
def test_what_is_no_text_is_refused(name, folder):
    assert_refused(train(folder, "--text", folder / name), "--text", folder / name)


FOREIGN = ["words.txt", "gru.pt", "nan.pt", "no bias.pt", "zeros.pt"]


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_model_is_refused(name, folder):
    assert_refused(generate(folder / name), folder / name, "char_rnn.py")


def test_a_missing_model_is_not_called_foreign(folder):
    path = folder / "missing"
    assert_refused(generate(path), f"there is no file {path}")


def test_a_model_is_not_called_foreign_when_there_is_no_such_device(folder):
    with pytest.raises(RuntimeError, match="toaster"):
        generate(folder / "model.pt", "--device", "toaster")


@each_cell
def test_a_saved_model_generates_what_the_one_in_memory_does(cell, folder, tmp_path):
    path = tmp_path / "model.pt"
    # As if the training had been on a GPU.
    with mock.patch.object(torch.serialization, "location_tag", lambda _: "cuda:0"):
        code, out, err = train(folder, "--cell", cell, "--save", path)
    assert (code, err, list(tmp_path.iterdir())) == (0, "", [path])
    code, generated, _ = generate(path)
    assert code == 0 and len(generated) == 301 and out.endswith(generated)

    # What was measured, on the last tenth, is measured again.
    model, vocabulary = generate_text.load(path)
    bits = bits_of_single_steps(model, char_rnn.encode(TEXT[3600:], vocabulary))
    best = float(re.search(r"^best (\S+)", out, re.MULTILINE)[1])
    assert best == pytest.approx(bits, abs=1e-4)


def test_the_last_tenth_is_never_trained_on(folder):
    argv = ["char_rnn.py", "--text", str(folder / "words.txt")]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(char_rnn, "train", return_value=[1.0]) as train,
    ):
        char_rnn.main()
    _, chars, held_out, _ = train.call_args.args
    assert torch.equal(chars, CHARS[:3600]) and torch.equal(held_out, CHARS[3600:])


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_text_is_drawn_with_the_probabilities_of_the_model(temperature):
    """Draw again, reading all that is written so far anew for every character."""
    model = small()
    char_rnn.train(model, CHARS, CHARS[:100], steps=100)
    torch.manual_seed(5)
    found = generate_text.generate(model, VOCABULARY, TEXT[:20], 60, temperature)

    torch.manual_seed(5)
    read = CHARS[:20].tolist()
    for _ in range(60):
        with torch.no_grad():
            logits, _ = model(torch.tensor(read)[:, None])  # (T, 1, V)
        powers = logits[-1, 0].double().exp() ** (1 / temperature)
        read.append((powers / powers.sum()).float().multinomial(1).item())
    assert found == "".join(VOCABULARY[char] for char in read[20:])
    assert len(set(found)) > 5


def test_a_prompt_is_shown_and_must_be_known(folder):
    code, out, _ = generate(folder / "model.pt", "--prompt", "été")
    assert code == 0 and out.startswith("été") and len(out) == 304
    refused = generate(folder / "model.pt", "--prompt", "été €Ω")
    assert_refused(refused, "--prompt", folder / "model.pt", "'Ω€'")


def test_a_text_may_have_one_character_and_a_byte_order_mark_is_none(folder, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 1000, encoding="utf-8-sig")
    assert char_rnn.read_text(tmp_path / "a.txt") == "a" * 1000
    code, out, _ = train(folder, "--text", tmp_path / "a.txt")
    assert code == 0 and out.splitlines()[-1] == "a" * 300


@pytest.mark.parametrize("program", [char_rnn, generate_text])
def test_a_terminal_without_a_character_gets_a_question_mark(program):
    for encoding, shown in {"cp1252": "été ????", "utf-8": "été снег"}.items():
        terminal = io.TextIOWrapper(io.BytesIO(), encoding)
        with contextlib.redirect_stdout(terminal):
            program.show("été снег")
        terminal.flush()
        assert terminal.buffer.getvalue().decode(encoding) == f"{shown}{os.linesep}"


@pytest.mark.skipif(sys.platform == "win32", reason="links are not common there")
def test_a_link_stays_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "model.pt")
    assert train(folder, "--save", tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    generate_text.load(tmp_path / "model.pt")


# variable_lengths.py


def test_packed_sequences_get_what_they_get_alone_and_padded_ones_do_not():
    torch.manual_seed(3)
    gru = torch.nn.GRU(4, 6, bidirectional=True).double().requires_grad_(False)
    sequences = [torch.randn(length, 4).double() for length in (5, 9, 1, 7, 7, 3)]
    expected = [gru(sequence) for sequence in sequences]
    for way in (variable_lengths.alone, variable_lengths.packed):
        torch.testing.assert_close(way(gru, sequences), expected)

    padded = variable_lengths.padded(gru, sequences)
    for sequence, one, other in zip(sequences, padded, expected, strict=True):
        one, other = variable_lengths.parts(one), variable_lengths.parts(other)
        # h_n is the state after the last real step, in both directions.
        assert torch.equal(other["forward outputs"][-1], other["forward h_n"])
        assert torch.equal(other["backward outputs"][0], other["backward h_n"])
        errors = {name: (one[name] - other[name]).abs().max() for name in one}
        assert errors.pop("forward outputs") < 1e-12
        # The zeros spoil the others by far more than rounding, save the longest.
        for error in errors.values():
            assert error < 1e-12 if len(sequence) == 9 else error > 1e-4
