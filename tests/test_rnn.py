"""Recurrent networks: compared with torch's modules, single steps and NumPy."""

import contextlib
import io
import itertools
import lzma
import math
import os
import re
import sys
from pathlib import Path
from pydoc_data.topics import topics
from unittest import mock

import char_rnn
import generate_text
import numpy as np
import pytest
import torch
import variable_lengths
from collection import execute, losses, run

ELMAN = "rnn/elman_rnn.py"
each_cell = pytest.mark.parametrize("cell", char_rnn.CELLS)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def assert_close(found, expected, dtype):
    """What is compared here lies between -1 and 1, and is the sum of a dozen products
    at each of at most ten steps: that makes about a hundred roundings.
    """
    bound = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=0, atol=bound)


# elman_rnn.py


def elman_and_nn_rnn(dtype):
    """Return an ElmanRNN, an nn.RNN with the same weights, and the pairs of these."""
    torch.manual_seed(1)
    by_hand = execute(ELMAN)["ElmanRNN"](3, 5).to(dtype)
    from_nn = torch.nn.RNN(3, 5).to(dtype)
    pairs = [
        (by_hand.input_linear.weight, from_nn.weight_ih_l0),
        (by_hand.input_linear.bias, from_nn.bias_ih_l0),
        (by_hand.hidden_linear.weight, from_nn.weight_hh_l0),
        (by_hand.hidden_linear.bias, from_nn.bias_hh_l0),
    ]
    with torch.no_grad():
        for one, other in pairs:
            other.copy_(one)
    return by_hand, from_nn, pairs


@each_dtype
@pytest.mark.parametrize("given", [True, False], ids=["h0", "no h0"])
def test_elman_equals_nn_rnn_in_outputs_and_all_gradients(dtype, given):
    by_hand, from_nn, pairs = elman_and_nn_rnn(dtype)
    upstream, last_upstream = torch.randn(9, 4, 5), torch.randn(4, 5)
    x = torch.randn(9, 4, 3, dtype=dtype, requires_grad=True)
    h0 = torch.randn(1, 4, 5, dtype=dtype, requires_grad=True)
    results = []
    for model, start, weights in zip(
        (by_hand, from_nn), (h0[0], h0), zip(*pairs, strict=True), strict=True
    ):
        output, h_n = model(x, *([start] if given else []))
        h_n = h_n.reshape(4, 5)
        loss = (output * upstream).mean() + (h_n * last_upstream).mean()
        inputs = [x, *weights, *([h0] if given else [])]
        results.append([output, h_n, *torch.autograd.grad(loss, inputs)])
    assert_close(*results, dtype)


def test_elman_passes_gradcheck():
    by_hand, _, _ = elman_and_nn_rnn(torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(by_hand, (x, h0))


def test_elman_prints_the_losses_of_nn_rnn_and_has_a_memory():
    text = run(ELMAN).stdout
    found = losses(text)
    beside = [float(loss) for loss in re.findall(r"nn\.RNN (\S+)", text)]
    assert list(found.values()) == pytest.approx(beside, rel=1e-3)
    # Without the state, no network gets below ln 2.
    assert found[500] < 1e-3 * math.log(2)


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
    """From the beginning of the text on, which is not the second piece."""
    pieces = char_rnn.cut(CHARS)
    assert {inputs.shape for inputs, _ in pieces[:-1]} == {(64, 32)}
    length = (len(TEXT) - 1) // 32
    for part in (0, 1):
        columns = torch.cat([piece[part] for piece in pieces]).T
        texts = ["".join(VOCABULARY[i] for i in column) for column in columns]
        begins = range(part, 32 * length + part, length)
        assert texts == [TEXT[begin:][:length] for begin in begins]


@each_cell
def test_bits_per_character_are_those_of_single_steps(cell):
    model = small(cell)
    found = char_rnn.bits_per_character(model, CHARS[:500])
    assert found == pytest.approx(bits_of_single_steps(model, CHARS[:500]), rel=1e-5)


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
            continue
        before = calls[i - 1][2]
        pairs = zip(state, before) if cell == "lstm" else [(state, before)]
        for one, other in pairs:
            assert torch.equal(one, other) and one.count_nonzero()
            assert one.grad_fn is None and other.grad_fn is not None


def test_gradients_are_clipped():
    model = small()
    with torch.no_grad():
        model.linear.weight *= 100  # so that the loss is large, and its gradient
    char_rnn.train(model, CHARS, CHARS[:100], steps=1)
    grads = [weight.grad for weight in model.parameters()]
    assert torch.nn.utils.get_total_norm(grads) == pytest.approx(1.0, rel=1e-3)


def test_the_last_tenth_is_held_out_and_never_trained_on(call, monkeypatch):
    train = mock.Mock(return_value=[1.0])
    monkeypatch.setattr(char_rnn, "train", train)
    assert call(char_rnn)[0] == 0
    _, chars, held_out, _ = train.call_args.args
    assert torch.equal(chars, CHARS[:3600]) and torch.equal(held_out, CHARS[3600:])


def test_lstm_takes_less_than_2_2_bits_per_character_and_lzma_is_right():
    out = run("rnn/char_rnn.py").stdout
    bits = [float(b) for b in re.findall(r"bits per character (\S+)", out)]
    best, by_lzma = re.search(r"^best (\S+)  lzma (\S+)$", out, re.MULTILINE).groups()
    assert float(best) == min(bits) < 2.2

    text = "".join(text for _, text in sorted(topics.items()))[:100_000]
    parts = text.encode(), text[:90_000].encode()
    whole, known = (len(lzma.compress(part)) for part in parts)
    assert float(by_lzma) == pytest.approx(8 * (whole - known) / 10_000, abs=1e-4)


# char_rnn.py and generate_text.py: drawing, saving, and the reader's files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text and a model, and with files that are neither."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "words.txt").write_text(TEXT, encoding="utf-8")
    weights = char_rnn.CharRNN("lstm", len(VOCABULARY)).state_dict()
    saved = {"cell": "lstm", "vocabulary": VOCABULARY, "weights": weights}
    char_rnn.save(saved, folder / "model.pt")
    torch.save(weights, folder / "other.pt")
    torch.save(saved | {"cell": "gru"}, folder / "gru.pt")
    torch.save(saved | {"vocabulary": "abc"}, folder / "vocabulary.pt")
    nan = weights | {"linear.bias": torch.full_like(weights["linear.bias"], math.nan)}
    torch.save(saved | {"weights": nan}, folder / "nan.pt")
    whole = (folder / "model.pt").read_bytes()
    (folder / "half.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "empty").touch()
    (folder / "short.txt").write_text("too short")
    (folder / "latin1.txt").write_text("été " * 500, encoding="latin-1")
    return folder


@pytest.fixture
def call(monkeypatch, capsys, folder):
    """A function that calls a program; it returns (exit status, stdout, stderr)."""

    def call(program, *options):
        if program is char_rnn:
            options = "--steps", 2, "--text", folder / "words.txt", *options
        monkeypatch.setattr(sys, "argv", [program.__name__, *map(str, options)])
        code = 0
        try:
            program.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def assert_refused(done, *names):
    """One line, after that on the usage, names what is wrong; nothing else is said."""
    code, out, err = done
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]
    assert err.startswith("usage: ") and ": error: " in line
    assert all(str(name) in line for name in names), line


@pytest.mark.parametrize("name", ["missing", ".", "empty", "short.txt", "latin1.txt"])
def test_what_is_no_text_is_refused(name, folder, call):
    assert_refused(call(char_rnn, "--text", folder / name), "--text", folder / name)


FOREIGN = "missing . empty words.txt half.pt other.pt gru.pt vocabulary.pt nan.pt"


@pytest.mark.parametrize("name", FOREIGN.split())
def test_what_is_no_model_is_refused(name, folder, call):
    assert_refused(call(generate_text, folder / name), folder / name, "char_rnn.py")


def test_a_damaged_model_is_refused(folder, tmp_path, call):
    """A page that never reached the disk: PyTorch takes the zeros for weights."""
    whole = (folder / "model.pt").read_bytes()
    saved = torch.load(folder / "model.pt", weights_only=True)
    weights = saved["weights"]["rnn.weight_ih_l0"].numpy().tobytes()
    path = tmp_path / "model.pt"
    path.write_bytes(whole.replace(weights, bytes(len(weights))))
    assert path.read_bytes() != whole and torch.load(path, weights_only=True)
    assert_refused(call(generate_text, path), path)


def test_a_model_from_a_gpu_is_loaded_on_a_cpu(folder, tmp_path, call):
    saved = torch.load(folder / "model.pt", weights_only=True)
    path = tmp_path / "model.pt"
    with mock.patch.object(torch.serialization, "location_tag", lambda _: "cuda:0"):
        torch.save(saved, path)
    found = call(generate_text, path)
    assert found[0] == 0 and found == call(generate_text, folder / "model.pt")


def test_a_model_is_not_called_foreign_when_something_else_fails(
    folder, call, monkeypatch
):
    """There is no such device; or nobody reads what is printed, as behind head."""
    with pytest.raises(RuntimeError, match="toaster"):
        call(generate_text, folder / "model.pt", "--device", "toaster")
    monkeypatch.setattr(generate_text, "show", mock.Mock(side_effect=BrokenPipeError))
    with pytest.raises(BrokenPipeError):
        call(generate_text, folder / "model.pt")


@each_cell
def test_a_saved_model_generates_what_the_one_in_memory_does(cell, call, tmp_path):
    path = tmp_path / "model.pt"
    code, out, err = call(char_rnn, "--cell", cell, "--save", path)
    assert (code, err, list(tmp_path.iterdir())) == (0, "", [path])
    code, generated, _ = call(generate_text, path)
    assert code == 0 and len(generated) == 301 and out.endswith(generated)

    # What was measured is measured again, of the weights in the file.
    model, vocabulary = generate_text.load(path)
    bits = bits_of_single_steps(model, char_rnn.encode(TEXT[3600:], vocabulary))
    best = float(re.search(r"^best (\S+)", out, re.MULTILINE)[1])
    assert best == pytest.approx(bits, abs=1e-4)


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


def test_a_prompt_is_shown_and_must_be_known(folder, call):
    code, out, _ = call(generate_text, folder / "model.pt", "--prompt", "été")
    assert code == 0 and out.startswith("été") and len(out) == 304
    refused = call(generate_text, folder / "model.pt", "--prompt", "été €Ω")
    assert_refused(refused, "--prompt", folder / "model.pt", "'Ω€'")


def test_a_text_of_one_character_works(call, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 1000)
    code, out, _ = call(char_rnn, "--text", tmp_path / "a.txt")
    assert code == 0 and out.splitlines()[-1] == "a" * 300


def test_a_byte_order_mark_is_no_character(tmp_path):
    (tmp_path / "marked.txt").write_text(TEXT, encoding="utf-8-sig")
    assert char_rnn.read_text(tmp_path / "marked.txt") == TEXT


@pytest.mark.parametrize("program", [char_rnn, generate_text])
def test_a_terminal_without_a_character_gets_a_question_mark(program):
    for encoding, shown in {"cp1252": "été ????", "utf-8": "été снег"}.items():
        terminal = io.TextIOWrapper(io.BytesIO(), encoding)
        with contextlib.redirect_stdout(terminal):
            program.show("été снег")
        terminal.flush()
        assert terminal.buffer.getvalue().decode(encoding) == f"{shown}{os.linesep}"


@pytest.mark.parametrize("older", [None, b"precious"])
def test_a_full_disk_keeps_the_old_file(older, call, tmp_path, monkeypatch):
    def no_space(path, content):
        path.open("wb").close()
        raise OSError(28, "No space left on device")

    path = tmp_path / "model.pt"
    if older:
        path.write_bytes(older)
    monkeypatch.setattr(Path, "write_bytes", no_space)
    code, _, err = call(char_rnn, "--save", path)
    assert code == 2
    assert f"cannot write {path}: [Errno 28]" in err.splitlines()[-1]
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == (
        {path: older} if older else {}
    )


@pytest.mark.parametrize("name", [".", "no_folder/model.pt", "words.txt/model.pt"])
def test_a_place_for_no_file_is_refused_before_the_training(name, folder, call):
    path = (folder / name).resolve()
    assert_refused(call(char_rnn, "--save", path), "--save", path)


@pytest.mark.skipif(sys.platform == "win32", reason="neither of both is common there")
def test_a_pipe_is_not_replaced_by_a_file_and_a_link_stays_a_link(call, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert_refused(call(char_rnn, "--save", tmp_path / "pipe"), "--save")
    assert (tmp_path / "pipe").is_fifo()

    (tmp_path / "link").symlink_to(tmp_path / "model.pt")
    assert call(char_rnn, "--save", tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert torch.load(tmp_path / "model.pt", weights_only=True)["cell"] == "lstm"


# variable_lengths.py and masked_loss.py


def gru_and_sequences(dtype):
    """Return a bidirectional GRU and sequences of 1 to 9 steps in random order."""
    torch.manual_seed(3)
    gru = torch.nn.GRU(4, 6, bidirectional=True).to(dtype).requires_grad_(False)
    return gru, [torch.randn(length, 4, dtype=dtype) for length in (5, 9, 1, 7, 7, 3)]


def by_single_steps(gru, sequences):
    """Return [(output, h_n), ...] by nn.GRUCell, one step after the other."""

    def states(suffix, sequence):
        cell = torch.nn.GRUCell(4, 6).to(sequence.dtype).requires_grad_(False)
        for name, weight in cell.named_parameters():
            weight.copy_(getattr(gru, f"{name}_l0{suffix}"))
        hs = [None]
        for x in sequence:
            hs.append(cell(x, hs[-1]))
        return torch.stack(hs[1:])  # (length, H)

    results = []
    for sequence in sequences:
        forward, backward = states("", sequence), states("_reverse", sequence.flip(0))
        output = torch.cat([forward, backward.flip(0)], dim=1)
        results.append((output, torch.stack([forward[-1], backward[-1]])))
    return results


@each_dtype
@pytest.mark.parametrize("way", [variable_lengths.alone, variable_lengths.packed])
def test_packed_gives_each_sequence_what_it_gets_alone(way, dtype):
    """So h_n is the state after the last real step, in both directions."""
    gru, sequences = gru_and_sequences(dtype)
    assert_close(way(gru, sequences), by_single_steps(gru, sequences), dtype)


def test_padding_spoils_the_backward_direction_and_h_n():
    """Of all but the longest sequence, by far more than rounding does."""
    gru, sequences = gru_and_sequences(torch.float64)
    found = variable_lengths.padded(gru, sequences)
    expected = by_single_steps(gru, sequences)
    for sequence, one, other in zip(sequences, found, expected, strict=True):
        one, other = variable_lengths.parts(one), variable_lengths.parts(other)
        errors = {name: (one[name] - other[name]).abs().max() for name in one}
        assert torch.equal(other["forward outputs"][-1], other["forward h_n"])
        assert torch.equal(other["backward outputs"][0], other["backward h_n"])
        assert errors.pop("forward outputs") < 1e-12
        for error in errors.values():
            assert error < 1e-12 if len(sequence) == 9 else error > 1e-4


def test_table_of_lengths_says_so():
    table = run("rnn/variable_lengths.py").stdout.splitlines()[2:]
    steps = [str(16 * 16), str(sum(range(17)))]
    spoilt = ["1", "16"]
    expected = [["16", "16"], spoilt, spoilt, spoilt, steps]
    assert [line.split()[-2:] for line in table] == expected


def test_masked_loss_is_that_of_single_sequences():
    text = run("rnn/masked_loss.py").stdout
    found = dict(re.findall(r"^(\w+) +loss (\S+)$", text, re.MULTILINE))
    assert float(found["masked"]) == pytest.approx(float(found["alone"]), rel=1e-3)
    assert float(found["padded"]) < 0.9 * float(found["alone"])
