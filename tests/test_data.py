"""Images are drawn, read, learned and classified as the chapter on data says."""

import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path
from unittest import mock

import apart
import classify_image
import data_loading
import loading_speed
import numpy as np
import pytest
import shared_batches
import torch
import train_cnn
from collection import outcome, run, source
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F
from torch.utils.data import DataLoader

DRAW, TRAIN = "data/draw_images.py", "data/train_cnn.py"

# A fork server that has imported torch starts workers much faster than spawn does.
CONTEXT = "spawn"
if "forkserver" in multiprocessing.get_all_start_methods():
    CONTEXT = "forkserver"
    multiprocessing.set_forkserver_preload(["torch"])


def draw(folder, *options):
    """Draw digits, of each two unless told otherwise, and return {file: bytes}."""
    argv = [str(folder), "--count", "2", *options]
    code, _, errors = outcome(DRAW, argv=argv)
    assert code == 0, errors
    return contents(folder)


def contents(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def refused(script, *options):
    """Execute a script that has to refuse, and return the line that says why."""
    code, out, errors = outcome(script, argv=map(str, options))
    assert code == 2 and "loss" not in out
    return errors.splitlines()[-1]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of ten drawn digits of each kind."""
    folder = tmp_path_factory.mktemp("images")
    draw(folder, "--count", "10")
    return folder


@pytest.fixture
def copy(tmp_path):
    """A folder of two digits of each kind, which a test may spoil."""
    draw(tmp_path / "copy")
    return tmp_path / "copy"


# Drawing

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_seed_size_and_count_decide_what_is_drawn(digits, tmp_path):
    assert draw(tmp_path / "same", "--count", "10") == contents(digits)
    other = draw(tmp_path / "other", "--seed", "1", "--size", "40")
    assert len(other) == 20
    assert other != draw(tmp_path / "another", "--size", "40")
    with Image.open(tmp_path / "other" / "seven" / "001.png") as image:
        assert (image.size, image.mode) == ((40, 40), "RGB")


def test_drawing_leaves_alone_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "notes.txt"):
        assert str(target) in refused(DRAW, target)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_most_drawings_look_like_the_digit_that_their_folder_names(digits):
    """It fits best of the plain digits, when these are moved by up to 3 pixels."""
    plain = []
    for digit, size in np.ndindex(10, 3):
        image = Image.new("L", (28, 28))
        font = ImageFont.load_default(18 + 3 * size)
        ImageDraw.Draw(image).text((14, 14), str(digit), 255, font, anchor="mm")
        pixels = torch.tensor(np.array(image)).float()
        plain.append((pixels - pixels.mean()) / pixels.std())

    files = [file for name in NAMES for file in (digits / name).iterdir()]
    drawn = torch.stack([data_loading.read_image(file, 28) for file in files])
    drawn = drawn.float().mean(1, keepdim=True)  # (100, 1, 28, 28)
    assert len(drawn[:, 0, 0, 0].unique()) > 50, "drawings have their paper in common"
    drawn -= drawn.flatten(1).median(1).values.view(-1, 1, 1, 1)
    fits = F.conv2d(drawn, torch.stack(plain)[:, None], padding=3)  # (100, 30, 7, 7)
    found = fits.view(100, 10, -1).amax(2).argmax(1)
    right = (found == torch.arange(10).repeat_interleave(10)).sum()
    assert right > 60, "more than a third is taken for another digit"


# Reading

READERS = {
    "data_loading": lambda path: data_loading.read_image(path, 32),
    "train_cnn": train_cnn.read_image,
    "classify_image": classify_image.read_image,
}
size = 40, 60
grey16 = Image.fromarray(np.full((9, 5), 0x8040, np.uint16))
palette = Image.new("RGB", size, (9, 20, 3)).convert("P", palette=1)
# An image, and the colour as which it is to be read.
KINDS = {
    "rgb.jpeg": (Image.new("RGB", size, (200, 100, 50)), (200, 100, 50)),
    "cmyk.jpeg": (Image.new("CMYK", size, (0, 255, 255, 0)), (255, 0, 0)),
    "bits.png": (Image.new("1", size, 1), (255, 255, 255)),
    "palette.png": (palette, (9, 20, 3)),
    "opaque.png": (Image.new("RGBA", (1, 1), (1, 2, 3, 255)), (1, 2, 3)),
    # These are read by data_loading.py only.
    "grey16.png": (grey16, (128, 128, 128)),
    "clear.png": (Image.new("RGBA", size, (1, 2, 3, 0)), (255, 255, 255)),
    "clear_grey.png": (Image.new("LA", size, (9, 0)), (255, 255, 255)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_image_is_read_in_its_colour(name, tmp_path):
    image, colour = KINDS[name]
    image.save(tmp_path / name)
    difficult = name.startswith(("grey16", "clear"))
    for reader in ["data_loading"] if difficult else READERS:
        pixels = READERS[reader](tmp_path / name)
        assert (pixels.shape, pixels.dtype) == ((3, 32, 32), torch.uint8)
        # JPEG may change a colour a little.
        assert (pixels.int() - torch.tensor(colour).view(3, 1, 1)).abs().max() <= 3


def test_a_photo_is_turned_the_right_way_up(tmp_path):
    """Orientation 6: the camera was held so that the left side is the real top."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.jpeg", exif=exif)
    turned = data_loading.read_image(tmp_path / "photo.jpeg", 8)  # (3, 8, 8)
    assert turned[:, :3].min() > 200
    assert turned[:, 5:].max() < 50


@pytest.mark.parametrize("reader", READERS)
def test_what_would_become_black_or_white_is_refused(reader, tmp_path):
    """As Pillow has no other way from more than 8 bits to RGB."""
    path = tmp_path / "image.tiff"
    for kind in (np.float32, np.int32, np.uint16):
        Image.fromarray(np.ones((8, 8), kind)).save(path)
        if (reader, kind) != ("data_loading", np.uint16):
            with pytest.raises(ValueError, match="cannot read .*image.tiff: .*32 bits"):
                READERS[reader](path)


def broken(folder, kind="half a jpeg"):
    """Put one file of a kind that cannot be read into a folder."""
    path = folder / f"bad.{kind.split()[-1]}"
    if kind == "a folder":
        path.mkdir()
    else:
        Image.effect_noise((64, 64), 50).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize("kind", ["a folder", "half a png", "half a jpeg"])
@pytest.mark.parametrize("script", ["data_loading", "train_cnn", "loading_speed"])
def test_a_file_that_cannot_be_read_and_an_empty_folder_are_named(script, kind, copy):
    path = broken(copy / "eight", kind)
    line = refused(f"data/{script}.py", "--images", copy)
    assert f"cannot read {path}: " in line
    line = refused(f"data/{script}.py", "--images", copy / "zero")
    assert f"{copy / 'zero'} needs " in line


def test_a_copy_without_the_drawing_script_says_what_is_missing(tmp_path, capfd):
    program = "copy.py", source(TRAIN), [], str(tmp_path / "copy.py")
    assert apart.outcome(*program) == (2, "", "")
    assert str(tmp_path / "draw_images.py") in capfd.readouterr().err


# Dataset and DataLoader


def test_items_are_the_images_and_the_numbers_of_their_folders(copy):
    files = sorted(copy.glob("*/*.png"))
    # Jupyter, a Mac, and a Mac's zip file leave theirs beside the others.
    for name in (".ipynb_checkpoints", ".AppleDouble", "__MACOSX"):
        shutil.copytree(copy / "zero", copy / name)
    (copy / "empty").mkdir()
    (copy / "zero" / ".DS_Store").write_text("not an image")

    dataset = data_loading.ImageFolder(copy, 32)
    images, labels, classes = train_cnn.read_folder(copy)
    assert dataset.classes == classes == sorted(NAMES)
    assert len(dataset) == len(images) == len(files)
    for i, file in enumerate(files):
        image, label = dataset[i]
        assert classes[label] == classes[labels[i]] == file.parent.name
        with Image.open(file) as original:
            expected = np.array(original.resize((32, 32)))
        for found in (image, images[i], classify_image.read_image(file)):
            assert np.array_equal(found.permute(1, 2, 0), expected)


def test_the_last_line_of_a_worker_names_the_file(copy):
    path = broken(copy / "eight")
    dataset = data_loading.ImageFolder(copy, 28)
    loader = DataLoader(dataset, num_workers=1, multiprocessing_context=CONTEXT)
    line = ""
    try:
        list(loader)
    except ValueError as error:  # pytest.raises() would keep it, and so the worker
        line = str(error).splitlines()[-1]
    assert f"cannot read {path}: " in line


def test_shared_batches_hold_every_image_once_though_the_reader_is_slow(digits):
    """A slot that was written again too early would show images of a later batch."""
    images = shared_batches.ImageFolder(digits, 28)
    expected = {image.numpy().tobytes(): label for image, label in images}
    loader = shared_batches.shared_loader(images, 8, workers=2, context=CONTEXT)
    buffers = loader.dataset.buffers
    assert buffers.is_shared(), "with fork, a worker would fill its own copy"
    orders = [list(expected)]  # that of the files
    for _ in range(2):
        order = []
        for slot, labels in loader:
            time.sleep(0.02)
            for image, label in zip(buffers[slot], labels.tolist(), strict=False):
                order.append(image.numpy().tobytes())
                assert expected[order[-1]] == label
        assert sorted(order) == sorted(expected)
        assert order not in orders, "every epoch is shuffled anew"
        orders.append(order)


def test_speed_is_measured_with_the_workers_that_are_named(monkeypatch, capsys):
    loaders = []

    def seconds_per_epoch(loader, work):
        loaders.append(loader)
        return 1.0

    monkeypatch.setattr(loading_speed, "seconds_per_epoch", seconds_per_epoch)
    loading_speed.measure([0] * 100, CONTEXT)
    lines = capsys.readouterr().out.splitlines()
    assert len(loaders) == 2 * len(lines) == 8
    for i, loader in enumerate(loaders):
        assert f"workers {loader.num_workers} " in lines[i // 2]
        assert loader.persistent_workers is ("persistent" in lines[i // 2])


# The network


@pytest.mark.parametrize("script", [TRAIN])
def test_the_network_recognizes_98_percent_of_the_digits_held_out(script):
    *_, last = run(script).stdout.splitlines()
    assert last.startswith("epoch   10 ")
    assert float(last.split("accuracy ")[1]) >= 0.98


def test_prediction_neither_learns_nor_depends_on_the_other_images():
    """In training mode, batch normalization would do both."""
    torch.manual_seed(0)
    model = train_cnn.make_model(10)
    images = torch.randint(256, (260, 3, 8, 8), dtype=torch.uint8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    together = train_cnn.predict(model, images)
    torch.testing.assert_close(together[9:10], train_cnn.predict(model, images[9:10]))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_the_loss_of_an_epoch_is_the_mean_over_images():
    """The last of three batches is smaller; a learning rate of 0 changes no weights."""
    torch.manual_seed(0)
    images, labels = torch.randint(256, (10, 3, 32, 32)), torch.arange(10) % 2
    loader = DataLoader([*zip(images, labels, strict=True)], batch_size=4)
    model = train_cnn.make_model(2).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    loss = train_cnn.train_epoch(model, loader, optimizer, schedule)
    assert model.training, "train_epoch() has to call model.train()"
    parts = zip(images.split(4), labels.split(4), strict=True)
    total = sum(F.cross_entropy(model(x.float()), y, reduction="sum") for x, y in parts)
    assert loss == pytest.approx(total.item() / 10, rel=1e-5)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """What main() did in one epoch: the file, the images of training and prediction."""
    file = tmp_path_factory.mktemp("network") / "net.pt"
    options = "--images", str(digits), "--epochs", "1", "--save", str(file)
    train = mock.Mock(wraps=train_cnn.train_epoch)
    predict = mock.Mock(wraps=train_cnn.predict)
    with (
        mock.patch.object(sys, "argv", [TRAIN, *options]),
        mock.patch.object(train_cnn, "train_epoch", train),
        mock.patch.object(train_cnn, "predict", predict),
        # As if the training had been on a GPU.
        mock.patch.object(torch.serialization, "location_tag", lambda _: "cuda:0"),
    ):
        train_cnn.main()
    _, loader, *_ = train.call_args.args
    model, held_out = predict.call_args.args
    return file, model, loader.dataset.tensors[0], held_out


def test_a_fifth_is_held_out_and_never_trained_on(trained, digits):
    *_, train, held_out = trained
    assert (len(train), len(held_out)) == (80, 20)
    images, _, _ = train_cnn.read_folder(digits)
    found = torch.cat([train, held_out])
    assert sorted(found.tolist()) == sorted(images.tolist())


def test_a_saved_network_classifies_like_the_trained_one(trained, digits, tmp_path):
    file, model, *_ = trained
    assert os.listdir(file.parent) == ["net.pt"]
    path = digits / "two" / "007.png"
    logits = train_cnn.predict(model, train_cnn.read_image(path)[None])
    expected = logits.softmax(1)[0]
    code, out, _ = outcome("data/classify_image.py", argv=[str(file), str(path)])
    assert code == 0
    name, probability = out.split("  probability ")
    assert name == sorted(os.listdir(digits))[expected.argmax()]
    assert float(probability) == pytest.approx(expected.max().item(), abs=1e-4)

    path = broken(tmp_path)
    assert f"cannot read {path}: " in refused("data/classify_image.py", file, path)


def test_the_picture_shows_the_worst_images_and_marks_what_is_wrong():
    images = torch.zeros(12, 3, 32, 32, dtype=torch.uint8)
    labels = torch.tensor([0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    logits = torch.tensor([[1.0, 0.0]]).repeat(12, 1)  # "a" for all, with right for 10
    figure = train_cnn.draw([2.0, 1.0], [0.5, 0.75], images, labels, logits, "ab")
    curves, *worst = figure.axes
    assert [[*line.get_ydata()] for line in curves.lines] == [[2, 1], [0.5, 0.75]]
    assert [axes.get_title() for axes in worst] == ["a"] * 10
    colours = [axes.title.get_color() for axes in worst]
    assert colours == ["red", "red", *["black"] * 8]


@pytest.mark.parametrize("kind", ["missing", "half", "lacking"])
def test_a_network_that_save_has_not_written_is_refused(kind, trained, tmp_path):
    path = tmp_path / "net.pt"
    if kind == "half":
        path.write_bytes(trained[0].read_bytes()[:1000])
    elif kind == "lacking":
        saved = torch.load(trained[0], map_location="cpu", weights_only=True)
        saved["model"].popitem()
        torch.save(saved, path)
    assert str(path) in refused("data/classify_image.py", path, "image.png")


# The reader's files, when a network of this chapter or of the next one is saved

each_trainer = pytest.mark.parametrize(
    "script", [TRAIN, "rnn/char_rnn.py", "rnn/char_gpt.py"]
)


@each_trainer
@pytest.mark.parametrize("name", [".", "missing/net.pt", "old.pt/net.pt", "pipe"])
def test_a_place_for_no_file_is_refused_before_the_training(script, name, tmp_path):
    (tmp_path / "old.pt").touch()
    make_pipe = getattr(os, "mkfifo", Path.mkdir)  # Windows has no such pipes
    make_pipe(tmp_path / "pipe")
    line = refused(script, "--save", tmp_path / name)
    assert "cannot write" in line and str(tmp_path / name) in line


@each_trainer
def test_a_full_disk_leaves_the_old_file_and_no_other(script, tmp_path, monkeypatch):
    def no_space(path, content):
        path.open("wb").close()
        raise OSError(28, "No space left on device")

    file = tmp_path / "net.pt"
    file.write_bytes(b"precious")
    monkeypatch.setattr(Path, "write_bytes", no_space)
    brief = ["--epochs=1", "--count=2"] if script == TRAIN else ["--steps=1"]
    code, _, errors = outcome(script, argv=["--save", str(file), *brief])
    assert code == 2
    assert f"cannot write {file}: [Errno 28]" in errors.splitlines()[-1]
    assert contents(tmp_path) == {"net.pt": b"precious"}
