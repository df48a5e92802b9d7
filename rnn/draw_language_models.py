"""Compare how fast RNN, GRU, LSTM and GPT learn: over steps and over seconds.

Each is trained by its own script, char_rnn.py or char_gpt.py, on the same text. For
each, this one prints the best bits per character, and when they were reached. The
seconds are CPU time on one thread, without the measuring. By default the training is
only begun; curves worth a look take 1200 steps and some minutes.
"""

import argparse
import contextlib
import io
import re
import runpy
import time
from pathlib import Path
from unittest import mock

import torch

FOLDER = Path(__file__).parent
MODELS = {
    "RNN": ("char_rnn.py", "CharRNN", "rnn"),
    "GRU": ("char_rnn.py", "CharRNN", "gru"),
    "LSTM": ("char_rnn.py", "CharRNN", "lstm"),
    "GPT": ("char_gpt.py", "CharGPT"),
}


def learning_curve(max_steps, script, name, *cell):
    """Train a model of a script, and return [(step, seconds, bits), ...].

    It has a row for each time that the script has measured the bits per character.
    """
    # This does not call main(), since the script's __name__ is not "__main__".
    variables = runpy.run_path(str(FOLDER / script))
    text = variables["read_text"](None)
    vocabulary = "".join(sorted(set(text)))
    chars = variables["encode"](text, vocabulary)
    split = len(text) - len(text) // 10

    torch.manual_seed(0)
    model = variables[name](*cell, len(vocabulary))
    train = variables["train"]
    measure = variables["bits_per_character"]

    # The first optimizer of a process takes a second, which is not the model's fault.
    torch.optim.Adam([torch.zeros(1)])

    # The clock stands still while train() measures.
    trained = []  # seconds from one measurement to the next
    ends = [time.process_time()]

    def stop_and_measure(*args):
        trained.append(time.process_time() - ends[-1])
        bits = measure(*args)
        ends.append(time.process_time())
        return bits

    printed = io.StringIO()
    replaced = {"bits_per_character": stop_and_measure}
    with (
        mock.patch.dict(train.__globals__, replaced),
        contextlib.redirect_stdout(printed),
    ):
        history = train(model, chars[:split], chars[split:], max_steps)

    # A line is "step   50  loss 2.7340e+00  bits per character 4.0419".
    steps = re.findall(r"^step +(\d+)", printed.getvalue(), re.MULTILINE)
    seconds = torch.tensor(trained).cumsum(dim=0).tolist()
    return list(zip(map(int, steps), seconds, history))


def draw(curves):
    """Return a figure of {model: [(step, seconds, bits), ...]}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), dpi=240, layout="constrained")
    by_step, by_second = figure.subplots(1, 2, sharey=True)
    for model, curve in curves.items():
        # After the first step, all are at about six bits, far above the rest.
        steps, seconds, bits = zip(*curve[1:] or curve)
        by_step.plot(steps, bits, ".-", markersize=4, label=model)
        by_second.plot(seconds, bits, ".-", markersize=4)
    by_step.set(xlabel="training step", ylabel="bits per character")
    by_second.set(xlabel="seconds of CPU time", xscale="log")
    by_second.xaxis.set_major_formatter("{x:g}")
    for axes in (by_step, by_second):
        axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=10, help="of each model")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the curves")
    args = parser.parse_args()

    torch.set_num_threads(1)
    curves = {}
    for model, which in MODELS.items():
        curves[model] = learning_curve(args.max_steps, *which)
        step, seconds, bits = min(curves[model], key=lambda row: row[2])
        print(f"{model:4}  bits per character {bits:.4f}", end="")
        print(f"  at step {step:4d}  after {seconds:6.2f} seconds")

    if args.plot:
        try:
            draw(curves).savefig(args.plot)
        except (OSError, ValueError) as error:  # no such folder, no such format
            parser.error(f"cannot write {args.plot}: {error}")


if __name__ == "__main__":
    main()
