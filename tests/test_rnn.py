"""Recurrent networks: compared with torch's modules, single steps and NumPy."""

import codecs
import contextlib
import io
import itertools
import lzma
import math
import os
import pickle
import random
import re
import warnings
from pydoc_data.topics import topics
from unittest import mock

import forked
import numpy as np
import pytest
import torch
from collection import ROOT, SECONDS, edited, execute, finished, losses, source
from test_bad_input_gets_one_line import assert_one_line

ELMAN = "rnn/elman_rnn.py"
CHARS = "rnn/char_rnn.py"
LENGTHS = "rnn/variable_lengths.py"
CELLS = ["rnn", "gru", "lstm"]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
linux = pytest.mark.skipif(not forked.CAN_FORK, reason="these processes are forked")
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


@pytest.fixture(scope="module")
def elman():
    """The variables of the script after one step."""
    return execute(ELMAN)


def elman_and_nn_rnn(elman, dtype, D_in=3, H=5):
    """Return an ElmanRNN and an nn.RNN with the same weights, and pairs of the names.

    The weights are copied here by position, not by the script.
    """
    torch.manual_seed(1)
    by_hand = elman["ElmanRNN"](D_in, H).to(dtype)
    from_nn = torch.nn.RNN(D_in, H).to(dtype)
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


@dtypes
@pytest.mark.parametrize("given", [True, False], ids=["h0", "no h0"])
def test_elman_equals_nn_rnn_in_outputs_and_all_gradients(elman, dtype, given):
    by_hand, from_nn, pairs = elman_and_nn_rnn(elman, dtype)
    T, N = 9, 4
    upstream, last_upstream = torch.randn(T, N, 5), torch.randn(N, 5)
    results = []
    for i, model in enumerate((by_hand, from_nn)):
        torch.manual_seed(2)
        x = torch.randn(T, N, 3, dtype=dtype, requires_grad=True)
        h0 = torch.randn(N, 5, dtype=dtype, requires_grad=given)
        start_with = () if not given else (h0 if model is by_hand else h0[None],)
        output, h_n = model(x, *start_with)
        assert output.shape == (T, N, 5)
        h_n = h_n.reshape(N, 5)
        loss = (output * upstream).mean() + (h_n * last_upstream).mean()
        inputs = [x, *[pair[i] for pair in pairs], *([h0] if given else [])]
        results.append([output, h_n, *torch.autograd.grad(loss, inputs)])
    tolerance = {"rtol": 0, "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(*results, **tolerance)


def test_elman_passes_gradcheck(elman):
    by_hand, _, _ = elman_and_nn_rnn(elman, torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(by_hand, (x, h0))


@pytest.mark.parametrize("command", [(ELMAN,)], ids=" ".join)
def test_elman_prints_the_losses_of_nn_rnn(run):
    found = losses(run.stdout)
    beside = [float(loss) for loss in re.findall(r"nn\.RNN (\S+)", run.stdout)]
    assert list(found.values()) == pytest.approx(beside, rel=1e-3)
    assert found[500] < 1e-3


def test_without_memory_nobody_beats_a_coin():
    without = ("functional.linear(h, weight, bias)", "bias")
    by_hand, from_nn = execute(ELMAN, without, argv=["--steps", "100"])["losses"]
    assert by_hand > 0.99 * math.log(2)
    assert from_nn < 0.01


def test_nothing_but_memory_tells_the_answer(elman):
    """The answer is the same for a 0 as for a 1: half of each, to three deviations."""
    torch.manual_seed(0)
    x = torch.cat([torch.randint(2, elman["x"].shape) for _ in range(20)], dim=1)
    y = x[1:] != x[:-1]
    for bit in (0, 1):
        answers = y[x[1:] == bit].double()
        assert abs(answers.mean() - 0.5) < 3 * 0.5 / math.sqrt(len(answers))
    assert torch.equal(elman["x"][1:] != elman["x"][:-1], elman["y"].bool())


WORDS = ["the", "state", "goes", "on", "from", "piece", "to", "été,", "hiver", ""]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    """A file with 4000 characters of words in random order."""
    words = np.random.default_rng(0).choice(WORDS, 1000)
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(words)[:4000], encoding="utf-8")
    return path


def char_rnn(text_file, *more, cell="lstm", steps=4, edits=()):
    """Execute a small version of the script on the file and return its variables."""
    argv = "--cell", cell, "--text", str(text_file), "--steps", str(steps)
    edits = ("H=128", "H=16"), *edits
    return execute(CHARS, *edits, argv=[*argv, *map(str, more)])


STEEP = [("lr=1e-2", "lr=1e-1"), ("t % 50 == 0", "t % 10 == 0")]


@pytest.fixture(scope="module")
def stopped(text_file):
    """The variables after a run of steps so long that it stops by itself."""
    return char_rnn(text_file, steps=1000, edits=STEEP)


def numpy_bits(model, chars):
    """Return bits per character, one step and one character after the other."""
    model = model.double().eval()
    total, state = 0.0, None
    for x, y in itertools.pairwise(chars):
        with torch.no_grad():
            logits, state = model(x.view(1, 1), state)
        logits = logits.view(-1).numpy()
        total += np.log2(np.exp(logits - logits[y]).sum())
    model.float()
    return total / (len(chars) - 1)


@pytest.mark.parametrize("cell", CELLS)
def test_bits_per_character_are_those_of_single_steps(text_file, cell):
    v = char_rnn(text_file, cell=cell)
    assert v["history"][-1] == pytest.approx(
        numpy_bits(v["model"], v["held_out"]), rel=1e-5
    )


def test_training_stops_when_it_gets_worse_and_keeps_the_best_weights(stopped):
    history = stopped["history"]
    assert stopped["t"] < 1000
    assert history.index(min(history)) == len(history) - 4
    bits = numpy_bits(stopped["model"], stopped["held_out"])
    assert bits == pytest.approx(min(history), rel=1e-5)


def test_targets_are_the_inputs_one_character_later(text_file):
    v = char_rnn(text_file)
    x, y = torch.cat(v["x"]), torch.cat(v["y"])
    text = text_file.read_text(encoding="utf-8")
    for n in range(32):
        for part, shift in ((x, 0), (y, 1)):
            letters = "".join(v["vocabulary"][i] for i in part[:, n])
            begin = n * len(x) + shift
            assert text[begin:].startswith(letters)
    assert len(x) == len(y) == (3600 - 1) // 32


def test_the_last_tenth_is_held_out_and_never_trained_on(text_file):
    v = char_rnn(text_file)
    text = text_file.read_text(encoding="utf-8")
    held_out = "".join(v["vocabulary"][i] for i in v["held_out"])
    assert held_out == text[3600:]
    assert len(torch.cat(v["x"])) * 32 + 1 <= 3600


def graph_size(tensor):
    """Return how many functions autograd has recorded behind a tensor."""
    nodes = [tensor.grad_fn]
    for node in nodes:
        nodes += {n for n, _ in node.next_functions if n} - set(nodes)
    return len(nodes)


@pytest.mark.parametrize("cell", CELLS)
def test_state_is_carried_but_detached(text_file, cell):
    v = char_rnn(text_file, cell=cell, steps=2)
    states = v["state"] if cell == "lstm" else [v["state"]]
    assert all(s.grad_fn is None and s.count_nonzero() for s in states)
    longer = char_rnn(text_file, cell=cell, steps=6)
    assert graph_size(v["loss"]) == graph_size(longer["loss"])

    # The loss of step 2 depends on where step 1 ended.
    forgetful = char_rnn(
        text_file,
        cell=cell,
        steps=2,
        edits=[("x[piece], state)", "x[piece], None)")],
    )
    assert forgetful["loss"] != char_rnn(text_file, cell=cell, steps=2)["loss"]


def test_gradients_are_clipped(text_file):
    v = char_rnn(text_file, edits=[("max_norm=1.0", "max_norm=0.01")])
    grads = [w.grad for w in v["model"].parameters()]
    assert torch.nn.utils.get_total_norm(grads) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("cell", CELLS)
def test_same_seed_same_numbers_and_text(text_file, cell, capsys):
    outputs = []
    for _ in range(2):
        torch.manual_seed(torch.seed() % 1000)
        char_rnn(text_file, cell=cell)
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("cell", CELLS)
def test_saved_model_equals_the_one_in_memory(text_file, cell, tmp_path, capsys):
    path = tmp_path / "model.pt"
    v = char_rnn(text_file, "--save", path, cell=cell, steps=20)
    saved = torch.load(path, weights_only=True)
    assert (saved["cell"], saved["vocabulary"]) == (cell, v["vocabulary"])
    weights = dict(v["model"].state_dict())
    torch.testing.assert_close(dict(saved["weights"]), weights, rtol=0, atol=0)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]

    written = capsys.readouterr().out
    with pytest.raises(SystemExit) as exit:
        execute(CHARS, ("H=128", "H=16"), argv=["--load", str(path)])
    assert exit.value.code == 0
    sample = capsys.readouterr().out
    assert len(sample) == 301 and set(sample) <= {*saved["vocabulary"], "\n"}
    assert written.endswith(sample)


def test_sample_is_drawn_with_the_probabilities_of_the_model(text_file):
    """Draw again, reading all that is written so far anew for every character."""
    v = char_rnn(text_file, steps=20)
    model, chars = v["model"].eval(), [0]
    text = v["sample"](model, v["vocabulary"], "cpu")
    torch.manual_seed(0)
    for _ in range(60):
        with torch.no_grad():
            logits, _ = model(torch.tensor(chars)[:, None])  # (T, 1, V)
        chars.append(logits[-1, 0].softmax(0).multinomial(1).item())
    assert text[:60] == "".join(v["vocabulary"][char] for char in chars[1:])
    assert len(set(text[:60])) > 5


def test_a_text_of_one_character_works(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a" * 1000, encoding="utf-8")
    v = char_rnn(path)
    assert v["history"][-1] == 0
    assert v["sample"](v["model"], v["vocabulary"], "cpu") == "a" * 300


def default_text():
    return "".join(text for _, text in sorted(topics.items()))[:100_000]


@pytest.mark.parametrize("command", [(CHARS,)], ids=" ".join)
def test_lstm_takes_less_than_2_2_bits_per_character(run):
    bits = [float(b) for b in re.findall(r"bits per character (\S+)", run.stdout)]
    best, by_lzma = re.search(
        r"^best (\S+)  lzma (\S+)$", run.stdout, re.MULTILINE
    ).groups()
    assert float(best) == min(bits) < 2.2

    text = default_text().encode()
    known = default_text()[:90_000].encode()
    size = [len(lzma.compress(part)) for part in (text, known)]
    assert float(by_lzma) == pytest.approx(8 * (size[0] - size[1]) / 10_000, abs=1e-4)


def test_default_text_is_100_000_characters_of_the_documentation():
    v = execute(CHARS, ("H=128", "H=2"))
    assert v["text"] == default_text() and len(v["text"]) == 100_000
    assert v["split"] == 90_000


def wrong_files(folder, model):
    """Make files that are no text, or no model; yield the options and what is named."""
    whole = model.read_bytes()
    other = torch.nn.Linear(2, 2)
    files = {
        "empty": b"",
        "short.txt": b"too short",
        "latin1.txt": "été ".encode("latin-1") * 500,
        "text.txt": b"this is a text and no model\n" * 50,
        "half.pt": whole[: len(whole) // 2],
        "start.pt": whole[:50],
        "flipped.pt": whole[:300] + b"\0\0\0\0" + whole[304:],
        "pickle.pt": pickle.dumps({"cell": "rnn"}),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    torch.save(other.state_dict(), folder / "other.pt")
    torch.save(other, folder / "module.pt")
    saved = torch.load(model, weights_only=True)
    for name, change in {
        "cell.pt": {"cell": "linear"},
        "vocabulary.pt": {"vocabulary": "abc"},
        "no_vocabulary.pt": {"vocabulary": None},
        "weights.pt": {"weights": None},
        "gru.pt": {"cell": "gru"},
    }.items():
        torch.save(saved | change, folder / name)
    torch.save({}, folder / "nothing.pt")
    torch.save([1, 2], folder / "list.pt")


@pytest.fixture(scope="module")
def folder(text_file, tmp_path_factory):
    """A folder of files that the script must refuse."""
    folder = tmp_path_factory.mktemp("wrong")
    char_rnn(text_file, "--save", folder / "model.pt", edits=())
    wrong_files(folder, folder / "model.pt")
    return folder


@pytest.mark.parametrize(
    "option, name",
    [
        *[("--text", n) for n in ("missing", ".", "empty", "short.txt", "latin1.txt")],
        ("--text", "model.pt"),
        *[("--load", n) for n in ("missing", ".", "empty", "text.txt", "half.pt")],
        *[("--load", f"{n}.pt") for n in ("start", "flipped", "pickle", "other")],
        *[("--load", f"{n}.pt") for n in ("module", "cell", "vocabulary", "weights")],
        *[("--load", f"{n}.pt") for n in ("no_vocabulary", "gru", "nothing", "list")],
        ("--save", "."),
        ("--save", "no_folder/model.pt"),
        ("--save", "text.txt/model.pt"),
        ("--cell", "LSTM"),
    ],
)
def test_a_wrong_file_gets_one_line(option, name, folder, capfd):
    argv = [option, name if option == "--cell" else str(folder / name)]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with (
        pytest.raises(SystemExit) as exit,
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.simplefilter("always")
        execute(CHARS, ("H=128", "H=16"), argv=argv)
    assert exit.value.code == 2 and said == []
    out, err = capfd.readouterr()
    assert out == ""
    assert_one_line(err, f"argument {option}: ")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("command", [(CHARS, "--load", "missing.pt")], ids=" ".join)
def test_a_wrong_file_gets_one_line_in_a_process_of_its_own(run):
    assert (run.returncode, run.stdout) == (2, "")
    assert_one_line(run.stderr, "argument --load: not from --save: 'missing.pt'")


def wrote(capsys, path, edits=()):
    """Return what the script writes with a model, if it takes it."""
    with pytest.raises(SystemExit) as exit:
        execute(CHARS, ("H=128", "H=16"), *edits, argv=["--load", str(path)])
    out, err = capsys.readouterr()
    if exit.value.code == 0:
        assert err == ""
        return out
    assert (exit.value.code, out) == (2, "")
    assert_one_line(err, f"argument --load: not from --save: {str(path)!r}")
    return None


def test_a_damaged_model_is_refused(folder, tmp_path, capsys):
    """One bit at any place: it is noticed, or nothing depends on it."""
    whole = (folder / "model.pt").read_bytes()
    path = tmp_path / "model.pt"
    path.write_bytes(whole)
    expected = wrote(capsys, path)
    assert expected is not None

    chance = random.Random(0)
    found = []
    for place in chance.sample(range(len(whole)), 40):
        flipped = bytes([whole[place] ^ (1 << chance.randrange(8))])
        path.write_bytes(whole[:place] + flipped + whole[place:][1:])
        found.append(wrote(capsys, path))
    assert set(found) == {None, expected}
    assert found.count(None) > 20


def test_a_page_that_never_reached_the_disk_is_noticed(folder, tmp_path, capsys):
    """PyTorch itself takes the zeros for weights, without a word."""
    whole = (folder / "model.pt").read_bytes()
    saved = torch.load(folder / "model.pt", weights_only=True)
    weights = saved["weights"]["rnn.weight_ih_l0"].numpy().tobytes()
    place = whole.index(weights)
    path = tmp_path / "model.pt"
    path.write_bytes(whole.replace(weights, bytes(len(weights))))
    assert place and torch.load(path, weights_only=True)["cell"] == saved["cell"]
    assert wrote(capsys, path) is None


def test_a_model_with_weights_that_are_no_numbers_is_refused(folder, tmp_path, capsys):
    saved = torch.load(folder / "model.pt", weights_only=True)
    saved["weights"]["linear.bias"][3] = math.nan
    torch.save(saved, tmp_path / "model.pt")
    assert wrote(capsys, tmp_path / "model.pt") is None


def test_a_model_from_a_gpu_writes_on_a_cpu(folder, tmp_path, capsys):
    saved = torch.load(folder / "model.pt", weights_only=True)
    path = tmp_path / "model.pt"
    with mock.patch.object(torch.serialization, "location_tag", lambda _: "cuda:0"):
        torch.save(saved, path)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    assert wrote(capsys, path) == wrote(capsys, folder / "model.pt") is not None


class ClosedPipe(io.StringIO):
    """Where nobody reads any more, as behind head -n 1."""

    def write(self, text):
        raise BrokenPipeError


def test_a_model_is_not_called_foreign_when_printing_fails(folder):
    argv = ["--load", str(folder / "model.pt")]
    with pytest.raises(BrokenPipeError), contextlib.redirect_stdout(ClosedPipe()):
        execute(CHARS, ("H=128", "H=16"), argv=argv)


def test_a_terminal_without_a_character_gets_a_question_mark(tmp_path, capsys):
    """What cp1252 has stays as it is, and nothing that was trained is lost."""
    words = np.random.default_rng(0).choice(["été", "снег", "εαρ", "rain"], 500)
    (tmp_path / "words.txt").write_text(" ".join(words), encoding="utf-8")
    argv = "--save", tmp_path / "model.pt"
    v = char_rnn(tmp_path / "words.txt", *argv, steps=50)
    trained = v["sample"](v["model"], v["vocabulary"], "cpu")
    assert {*"éснra"} <= {*trained}
    expected = "".join(char if char in "été rain" else "?" for char in trained)

    load = ["--load", str(tmp_path / "model.pt")]
    for encoding, shown in {"cp1252": expected, "utf-8": trained}.items():
        terminal = io.TextIOWrapper(io.BytesIO(), encoding)
        with contextlib.redirect_stdout(terminal), pytest.raises(SystemExit) as exit:
            execute(CHARS, ("H=128", "H=16"), argv=load)
        assert exit.value.code == 0
        terminal.flush()
        assert terminal.buffer.getvalue().decode(encoding) == f"{shown}{os.linesep}"


def test_a_byte_order_mark_is_no_character(text_file, tmp_path):
    marked = tmp_path / "marked.txt"
    marked.write_bytes(codecs.BOM_UTF8 + text_file.read_bytes())
    assert char_rnn(marked)["text"] == char_rnn(text_file)["text"]


def saving(text_file, path, before=""):
    """Train in a process of its own, with this line before the script's.

    Return its exit status and what it says on stderr.
    """
    folder = path.parent / "run"
    folder.mkdir()
    small = edited(source(CHARS), ("H=128", "H=16"))
    (folder / "script.py").write_text(f"{before}\n{small}", encoding="utf-8")
    words = folder / "script.py", "--steps", 1, "--text", text_file, "--save", path
    outputs = folder / "stdout", folder / "stderr"
    process = forked.start(words, folder, outputs)
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        pytest.fail(f"the script still ran after {SECONDS} seconds")
    return process.exitcode, outputs[1].read_text(encoding="utf-8")


@linux
@pytest.mark.parametrize("older", [None, b"precious"])
def test_a_full_disk_keeps_the_old_file(older, text_file, tmp_path):
    """The system refuses what is beyond a limit for files, as if the disk were full."""
    path = tmp_path / "model.pt"
    if older:
        path.write_bytes(older)
    limit = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (5000, 5000))"
    code, err = saving(text_file, path, before=limit)
    assert code == 2
    assert_one_line(err, f"argument --save: cannot write {str(path)!r}: [Errno ")
    assert older == (path.read_bytes() if path.exists() else None)
    assert {file.name for file in tmp_path.iterdir()} - {path.name} == {"run"}


@linux
def test_what_is_no_regular_file_is_not_replaced_by_one(text_file, tmp_path):
    """It is refused before the training. Here it is a pipe with a name."""
    os.mkfifo(tmp_path / "model.pt")
    code, err = saving(text_file, tmp_path / "model.pt")
    assert code == 2
    assert_one_line(err, "argument --save: cannot write a file there: ")
    assert (tmp_path / "model.pt").is_fifo()


@linux
def test_a_link_stays_a_link(text_file, tmp_path):
    (tmp_path / "disk").mkdir()
    path, target = tmp_path / "model.pt", tmp_path / "disk" / "large.pt"
    path.symlink_to(target)
    assert saving(text_file, path) == (0, "")
    assert path.is_symlink()
    assert torch.load(target, weights_only=True)["cell"] == "lstm"
    assert [file.name for file in target.parent.iterdir()] == [target.name]


@pytest.fixture(scope="module")
def lengths():
    """The variables of the script."""
    return execute(LENGTHS, argv=[])


def shuffled(dtype=torch.float32):
    """Return a bidirectional GRU and sequences of 1 to 9 steps in random order."""
    torch.manual_seed(3)
    gru = torch.nn.GRU(4, 6, bidirectional=True).to(dtype).requires_grad_(False)
    lengths = [5, 9, 1, 7, 7, 3]
    return gru, [torch.randn(length, 4, dtype=dtype) for length in lengths]


def one_by_one(gru, sequences):
    """Return the outputs and last states by nn.GRUCell, a step at a time."""
    outputs, h_n = [], []
    for sequence in sequences:
        directions = []
        for suffix, steps in (("", sequence), ("_reverse", sequence.flip(0))):
            cell = torch.nn.GRUCell(4, 6).to(sequence.dtype)
            for name, w in cell.named_parameters():
                w.data = getattr(gru, f"{name}_l0{suffix}")
            h, hs = None, []
            for x in steps:
                h = cell(x, h)
                hs.append(h)
            directions.append(torch.stack(hs).detach())
        h_n.append(torch.stack([hs[-1] for hs in directions]))
        outputs.append(torch.cat([directions[0], directions[1].flip(0)], dim=1))
    return outputs, h_n


@dtypes
@pytest.mark.parametrize("way", ["alone", "packed"])
def test_packed_gives_each_sequence_what_it_gets_alone(lengths, way, dtype):
    gru, sequences = shuffled(dtype)
    found = [list(part) for part in lengths[way](gru, sequences)]
    expected = list(one_by_one(gru, sequences))
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[dtype])


def test_padding_spoils_the_backward_direction_and_h_n(lengths):
    gru, sequences = shuffled()
    outputs, h_n = lengths["padded"](gru, sequences)
    expected, expected_h_n = one_by_one(gru, sequences)
    for i, sequence in enumerate(sequences):
        gap = (outputs[i] - expected[i]).abs()
        assert gap[:, :6].max() < 1e-6
        spoilt = gap[-1, 6:].max(), *(h_n[i] - expected_h_n[i]).abs().amax(1)
        assert all(x < 1e-6 if len(sequence) == 9 else x > 1e-4 for x in spoilt)


@pytest.mark.parametrize("command", [(LENGTHS,)], ids=" ".join)
def test_table_of_lengths_says_so(run):
    rows = {line.split()[0]: line.split()[1:] for line in run.stdout.splitlines()[2:]}
    assert rows["packed"] == ["16", "16", "16", "16", "136"]
    assert rows["padded"] == ["loss", rows["padded"][1]]
    assert "padded       16     1         1     1         256" in run.stdout
    assert rows["alone"] == rows["masked"]


def test_mean_over_real_steps_is_that_of_single_sequences(lengths):
    total, count = 0.0, 0
    for sequence, target in zip(lengths["sequences"], lengths["targets"], strict=True):
        h, _ = lengths["gru"](sequence)
        gap = (h[:, :16] - target[:, :16]).double().numpy()
        total, count = total + np.square(gap).sum(), count + gap.size
    assert lengths["loss"].item() == pytest.approx(total / count, rel=1e-6)


def test_count_of_the_same_is_exact(lengths):
    a = [torch.zeros(2, 3), torch.zeros(4, 3)]
    for gap, count in ((0.9e-6, 2), (1.1e-6, 1)):
        b = [a[0], a[1].clone()]
        b[1][3, 2] += gap
        assert lengths["count_same"](a, b) == count


@pytest.mark.parametrize("command", [(LENGTHS, "--time")], ids=" ".join)
def test_time_is_added_to_the_same_table(run):
    assert (run.returncode, run.stderr) == (0, "")
    table = finished((LENGTHS,)).stdout
    assert run.stdout.startswith(table)
    added = run.stdout.removeprefix(table).splitlines()
    assert [line.split()[0] for line in added] == ["alone", "packed", "padded"]
    assert added[2] == "padded  time 1.00 of padded"


def test_picture_is_drawn_and_light(tmp_path):
    execute(LENGTHS, argv=["--plot", str(tmp_path / "lengths.png")])
    (file,) = tmp_path.iterdir()
    for drawn in (file, ROOT / "rnn/variable_lengths.png"):
        assert drawn.read_bytes().startswith(b"\x89PNG")
        assert drawn.stat().st_size < 40_000


@pytest.mark.parametrize("name", ["no_folder/a.png", "a.txt", "a", "."])
def test_a_place_for_no_picture_gets_one_line(name, tmp_path, capfd):
    with pytest.raises(SystemExit) as exit:
        execute(LENGTHS, argv=["--plot", str(tmp_path / name)])
    assert exit.value.code == 2
    out, err = capfd.readouterr()
    assert out == "" and list(tmp_path.iterdir()) == []
    assert_one_line(err, "argument --plot: ")
