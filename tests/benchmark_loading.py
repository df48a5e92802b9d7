"""How fast images are loaded, as a share of what two processes could do at best.

    python tests/benchmark_loading.py

The best is a bare loop in two processes which only decodes the files and turns them
into floats, with nothing to shuffle, batch or hand over. All is measured in turns, in
one run. A figure is the median over the turns of the bare loop's time over the other's.
"""

import importlib
import multiprocessing
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from torch.utils.data import DataLoader

DATA = Path(__file__).resolve().parents[1] / "data"
sys.path.insert(0, str(DATA))  # forkserver hands it on to the workers
shared_batches = importlib.import_module("shared_batches")

TURNS = 9
BATCH_SIZE = 32
SETS = [(28, 200, "png"), (28, 200, "jpeg"), (224, 50, "png"), (224, 50, "jpeg")]
ctx = multiprocessing.get_context("forkserver")


def bare_loop(files):
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255))


def bare_process(files, start, done):
    torch.set_num_threads(1)
    while start.get():
        bare_loop(files)
        done.put(True)


class TwoProcesses:
    """The bare loop in two processes that wait for the next turn."""

    def __init__(self, files):
        self.start, self.done = [ctx.SimpleQueue() for _ in "ab"], ctx.SimpleQueue()
        for i, start in enumerate(self.start):
            arguments = files[i::2], start, self.done
            ctx.Process(target=bare_process, args=arguments, daemon=True).start()

    def __call__(self):
        self.tell(True)
        for _ in self.start:
            self.done.get()

    def tell(self, word):
        for start in self.start:
            start.put(word)


def draw(folder, size, count, kind):
    command = [sys.executable, DATA / "draw_images.py", folder]
    options = ["--size", str(size), "--count", str(count)]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    for file in folder.glob("*/*.png"):
        if kind == "jpeg":
            with Image.open(file) as image:
                image.save(file.with_suffix(".jpeg"), quality=90)
            file.unlink()
    return sorted(folder.glob("*/*"))


def tf_data(tf, files, kind):
    """Return a function that reads all files once, as TensorFlow's guide advises."""

    def read(file):
        data = tf.io.read_file(file)
        if kind == "png":
            pixels = tf.io.decode_png(data, channels=3)
        else:
            pixels = tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE")
        return tf.cast(pixels, tf.float32) / 255

    dataset = tf.data.Dataset.from_tensor_slices([str(file) for file in files])
    dataset = dataset.shuffle(len(files)).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)

    def run():
        for _ in dataset:
            pass

    return run


def measure(size, count, kind):
    """Return {name: share of two bare processes} for one set of images."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "images")
        files = draw(folder, size, count, kind)
        two = TwoProcesses(files)
        images = shared_batches.ImageFolder(folder, size)
        alone = DataLoader(images, BATCH_SIZE, shuffle=True)
        usual = shared_batches.usual_loader(images, BATCH_SIZE, workers=2, context=ctx)
        shared = shared_batches.shared_loader(images, BATCH_SIZE, 2, context=ctx)
        buffers = shared.dataset.buffers
        read = shared_batches.images_per_second

        names = {
            "bare loop, two processes": two,
            "bare loop, one process": lambda: bare_loop(files),
            "DataLoader, no workers": lambda: read(alone),
            "DataLoader, 2 workers": lambda: read(usual),
            "the same, shared batches": lambda: read(shared, buffers),
        }
        if tf is not None:
            names["tf.data"] = tf_data(tf, files, kind)

        seconds = {name: [] for name in names}
        for turn in range(TURNS + 1):
            for name, run in names.items():
                start = time.perf_counter()
                run()
                if turn:  # the first one warms up
                    seconds[name].append(time.perf_counter() - start)
        two.tell(False)
        best = seconds["bare loop, two processes"]
        return {
            name: statistics.median(b / s for b, s in zip(best, mine, strict=True))
            for name, mine in seconds.items()
        }


if __name__ == "__main__":
    try:
        import tensorflow as tf
    except ModuleNotFoundError:
        tf = None
    torch.set_num_threads(1)
    results = [measure(*images) for images in SETS]
    print(
        f"{platform.processor() or platform.machine()}, {ctx.cpu_count()} cores;",
        end=" ",
    )
    print(f"torch {torch.__version__}, Pillow {PIL.__version__}", end="")
    print(f", TensorFlow {tf.__version__}" if tf else "")
    print("| |" + "".join(f" {size} {kind.upper()} |" for size, _, kind in SETS))
    print("|---|" + "---|" * len(SETS))
    for name in results[0]:
        print(f"| {name} |" + "".join(f" {result[name]:.2f} |" for result in results))
