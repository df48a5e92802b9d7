"""Images are drawn, read, learned and classified as the chapter on data says."""

import os
import shutil
import sys
import time
from unittest import mock

import classify_image
import data_loading
import numpy as np
import pytest
import shared_batches
import torch
import train_cnn
from collection import ROOT, losses, run, run_in
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader

unix = pytest.mark.skipif(sys.platform == "win32", reason="what Windows has not")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of ten drawn digits of each kind."""
    parent = tmp_path_factory.mktemp("images")
    done = run_in(parent, "data/draw_images.py", "digits", "--count", "10")
    assert done.returncode == 0, done.stderr
    return parent / "digits"


@pytest.fixture
def copy(digits, tmp_path):
    """A copy of the digits that a test may spoil."""
    return shutil.copytree(digits, tmp_path / "images")


def contents(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def refused(folder, script, *options):
    """Run a script that has to refuse, and return the line in which it says why."""
    done = run_in(folder, script, *map(str, options))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "loss" not in done.stdout
    return done.stderr.splitlines()[-1]


# Drawing


def test_the_seed_decides_what_is_drawn(digits, tmp_path):
    for seed, same in (("0", True), ("1", False)):
        options = seed, "--count", "10", "--seed", seed
        run_in(tmp_path, "data/draw_images.py", *options)
        assert list(contents(tmp_path / seed)) == list(contents(digits))
        assert (contents(tmp_path / seed) == contents(digits)) is same


def test_drawn_images_have_the_size_and_the_number_asked_for(tmp_path):
    run_in(tmp_path, "data/draw_images.py", "new", "--count", "2", "--size", "40")
    assert len(contents(tmp_path / "new")) == 20
    with Image.open(tmp_path / "new" / "seven" / "001.png") as image:
        assert (image.size, image.mode) == ((40, 40), "RGB")


def test_drawing_leaves_alone_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "notes.txt"):
        assert str(target) in refused(tmp_path, "data/draw_images.py", target)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


# Reading

READERS = {
    "data_loading": lambda path: data_loading.read_image(path, 32),
    "train_cnn": train_cnn.read_image,
    "classify_image": classify_image.read_image,
}


def plain(mode, colour, size=(5, 9)):
    return Image.new(mode, size, colour)


def grey16(value):
    return Image.fromarray(np.full((9, 5), value, np.uint16))


big_endian = Image.frombytes("I;16B", (5, 9), b"\x80\x40" * 45)
palette = plain("RGB", (10, 20, 30)).convert("P", palette=1)
# An image, and the colour as which it is to be read.
KINDS = {
    "rgb.png": (plain("RGB", (200, 100, 50)), (200, 100, 50)),
    "rgb.jpeg": (plain("RGB", (200, 100, 50), (99, 64)), (200, 100, 50)),
    "grey.png": (plain("L", 77), (77, 77, 77)),
    "grey.jpeg": (plain("L", 77, (64, 64)), (77, 77, 77)),
    "bits.png": (plain("1", 1), (255, 255, 255)),
    "palette.png": (palette, (10, 20, 30)),
    "cmyk.jpeg": (plain("CMYK", (0, 255, 255, 0), (64, 64)), (255, 0, 0)),
    "opaque.png": (plain("RGBA", (1, 2, 3, 255)), (1, 2, 3)),
    "film.gif": (plain("RGB", (255, 0, 0)), (255, 0, 0)),
    "pixel.png": (plain("RGB", (4, 5, 6), (1, 1)), (4, 5, 6)),
}
# Those that only data_loading.py reads.
DIFFICULT = {
    "grey16.png": (grey16(0x8040), (128, 128, 128)),
    "bright16.png": (grey16(0xFFFF), (255, 255, 255)),
    "big_endian16.tiff": (big_endian, (128, 128, 128)),
    "clear.png": (plain("RGBA", (1, 2, 3, 0)), (255, 255, 255)),
    "clear_grey.png": (plain("LA", (9, 0)), (255, 255, 255)),
}


@pytest.mark.parametrize("name", [*KINDS, *DIFFICULT])
def test_every_kind_of_image_is_read_in_its_colour(name, tmp_path):
    image, colour = (KINDS | DIFFICULT)[name]
    image.save(tmp_path / name)
    for reader in READERS if name in KINDS else ["data_loading"]:
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


@pytest.mark.parametrize("kind", [np.int32, np.float32, np.uint16])
def test_what_would_become_black_or_white_is_refused(kind, tmp_path):
    """So would Pillow convert images of more than 8 bits."""
    Image.fromarray(np.ones((8, 8), kind)).save(tmp_path / "image.tiff")
    for name, reader in READERS.items():
        if (name, kind) != ("data_loading", np.uint16):
            with pytest.raises(ValueError, match="image.tiff.*32 bits"):
                reader(tmp_path / "image.tiff")


def test_training_and_classifying_read_an_image_the_same(digits):
    for file in sorted(digits.glob("*/*"))[::7]:
        one, *others = [read(file) for read in READERS.values()]
        for other in others:
            assert torch.equal(one, other), "change read_image in all scripts alike"


def damaged(folder, kind):
    """Put one file of a kind that cannot be read into a folder."""
    path = folder / f"bad{'.jpeg' if 'jpeg' in kind else '.png'}"
    Image.effect_noise((64, 64), 50).save(path)
    whole = path.read_bytes()
    if kind == "text":
        path.write_text("no image")
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "damaged png":
        path.write_bytes(whole[:60] + b"\0" * 200 + whole[260:])
    else:
        path.write_bytes(whole[: len(whole) // 2])
    return path


DAMAGE = ["text", "folder", "half a png", "half a jpeg", "damaged png"]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_cannot_be_read_is_named(reader, kind, tmp_path):
    path = damaged(tmp_path, kind)
    with pytest.raises(ValueError) as error:
        READERS[reader](path)
    assert str(error.value).startswith(f"cannot read {path}: ")


@pytest.mark.parametrize("script", ["data_loading", "train_cnn", "loading_speed"])
def test_a_broken_image_or_an_empty_folder_gets_one_line(script, copy):
    path = damaged(copy / "eight", "half a jpeg")
    for other in copy.glob("*/0[1-9]*"):
        other.unlink()
    line = refused(copy, f"data/{script}.py", "--images", copy)
    assert f"cannot read {path}: " in line
    line = refused(copy, f"data/{script}.py", "--images", copy / "zero")
    assert f"{copy / 'zero'} needs " in line


def test_a_copy_without_the_drawing_script_says_what_is_missing(tmp_path):
    script = shutil.copy(ROOT / "data" / "train_cnn.py", tmp_path / "my_copy.py")
    assert str(tmp_path / "draw_images.py") in refused(tmp_path, script)


# Dataset and DataLoader


def test_hidden_and_empty_folders_are_no_classes(copy):
    """Jupyter, a Mac, and a Mac's zip file leave theirs beside the others."""
    classes = sorted(folder.name for folder in copy.iterdir())
    labels = sorted([*range(10)] * 10)
    for name in (".ipynb_checkpoints", ".AppleDouble", "__MACOSX"):
        shutil.copytree(copy / "zero", copy / name)
    (copy / "empty").mkdir()
    (copy / "zero" / ".DS_Store").write_text("not an image")

    dataset = data_loading.ImageFolder(copy, 8)
    assert dataset.classes == classes
    assert [dataset[i][1] for i in range(len(dataset))] == labels
    _, labels_read, classes_read = train_cnn.read_folder(copy)
    assert (labels_read.tolist(), classes_read) == (labels, classes)


def test_an_item_is_the_image_and_the_number_of_its_folder(digits):
    dataset = data_loading.ImageFolder(digits, 28)
    files = sorted(digits.glob("*/*.png"))
    assert len(dataset) == len(files) == 100
    for i in (0, 57, 99):
        image, label = dataset[i]
        assert dataset.classes[label] == files[i].parent.name
        with Image.open(files[i]) as original:
            assert np.array_equal(image.permute(1, 2, 0), np.asarray(original))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_change_neither_the_order_nor_the_images(method, digits):
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"{method} is not a way to start processes here")
    dataset = data_loading.ImageFolder(digits, 28)
    epochs = []
    for context in (None, method):
        loader = DataLoader(
            dataset,
            batch_size=16,
            shuffle=True,
            generator=torch.Generator().manual_seed(5),
            num_workers=0 if context is None else 1,
            multiprocessing_context=context,
        )
        epochs.append([list(loader), list(loader)])
    alone, with_worker = epochs
    torch.testing.assert_close(alone, with_worker, rtol=0, atol=0)
    (_, labels), *_ = alone[0]
    (_, labels_later), *_ = alone[1]
    assert not torch.equal(labels, labels_later)


def test_the_last_line_of_a_worker_names_the_file(copy):
    path = damaged(copy / "eight", "half a jpeg")
    dataset = data_loading.ImageFolder(copy, 28)
    loader = DataLoader(dataset, num_workers=1, multiprocessing_context="spawn")
    with pytest.raises(ValueError) as error:
        list(loader)
    assert f"cannot read {path}: " in str(error.value).splitlines()[-1]


def test_shared_batches_hold_every_image_once_though_the_reader_is_slow(digits):
    """A slot that was written again too early would show images of a later batch."""
    images = shared_batches.ImageFolder(digits, 28)
    expected = {image.numpy().tobytes(): label for image, label in images}
    loader = shared_batches.shared_loader(images, 8, workers=2, context="spawn")
    buffers = loader.dataset.buffers
    assert buffers.is_shared(), "with fork, a worker would fill its own copy"
    for _ in range(2):
        seen = {}
        for slot, labels in loader:
            time.sleep(0.05)
            for image, label in zip(buffers[slot], labels.tolist(), strict=False):
                seen[image.numpy().tobytes()] = label
        assert seen == expected


# The network


def test_the_network_recognizes_98_percent_of_the_digits_held_out():
    done = run("data/train_cnn.py")
    *_, last = done.stdout.splitlines()
    assert float(last.split("accuracy ")[1]) >= 0.98
    assert len(losses(done.stdout)) == 10


def test_prediction_neither_learns_nor_depends_on_the_other_images():
    """In training mode, batch normalization would do both."""
    torch.manual_seed(0)
    model = train_cnn.make_model(10)
    images = torch.randint(256, (260, 3, 32, 32), dtype=torch.uint8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    together, alone = (
        train_cnn.predict(model, part) for part in (images, images[9:10])
    )
    torch.testing.assert_close(together[9:10], alone)
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
def trained(tmp_path_factory):
    """A network whose batch normalization has seen images, and its file."""
    torch.manual_seed(0)
    model = train_cnn.make_model(10)
    model(torch.randint(256, (64, 3, 32, 32)).float())
    file = tmp_path_factory.mktemp("network") / "digits.pt"
    train_cnn.save(model, [f"class {i}" for i in range(10)], file)
    return model, file


def test_a_saved_network_classifies_like_the_trained_one(trained, digits):
    model, file = trained
    loaded, _ = classify_image.load(file)
    for path in sorted(digits.glob("*/*"))[::30]:
        image = train_cnn.read_image(path)
        expected = train_cnn.predict(model, image[None]).softmax(1)[0]
        found = classify_image.classify(loaded, image)
        torch.testing.assert_close(found, expected)
    done = run_in(file.parent, "data/classify_image.py", file, path)
    name, probability = done.stdout.split("  probability ")
    assert name == f"class {expected.argmax()}"
    assert float(probability) == pytest.approx(expected.max().item(), abs=1e-4)


def test_train_cnn_saves_a_network_that_classify_image_loads(digits, tmp_path):
    options = "--images", digits, "--epochs", "1", "--save", "net.pt"
    done = run_in(tmp_path, "data/train_cnn.py", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(tmp_path) == ["net.pt"]
    _, classes = classify_image.load(tmp_path / "net.pt")
    assert classes == sorted(os.listdir(digits))


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


# The reader's files


@unix
def test_a_full_disk_leaves_the_old_file_and_no_other(trained, tmp_path):
    import resource

    model, _ = trained
    file = tmp_path / "net.pt"
    file.write_bytes(b"precious")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no larger file
    try:
        with pytest.raises(OSError):
            train_cnn.save(model, [], file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == {"net.pt": b"precious"}


def test_a_file_that_cannot_be_written_is_refused_before_training(tmp_path):
    file = tmp_path / "missing" / "net.pt"
    line = refused(tmp_path, "data/train_cnn.py", "--save", file)
    assert f"cannot write {file}: name a file in a folder that exists" in line


@unix
def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(os.devnull)
    (tmp_path / "old.pt").write_text("an older network")
    good = ["new.pt", "old.pt"]
    for name in ("fifo", "link", ".", "old.pt/net.pt", *good):
        assert train_cnn.can_be_written(tmp_path / name) is (name in good), name


@pytest.mark.parametrize("kind", ["missing", "text", "foreign", "half", "folder"])
def test_a_network_that_save_has_not_written_is_refused(kind, trained, tmp_path):
    path = tmp_path / "net.pt"
    if kind == "text":
        path.write_text("no network")
        line = refused(tmp_path, "data/classify_image.py", path, path)
        assert f"{path} is not a file that train_cnn.py has saved" in line
    elif kind == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    elif kind == "half":
        path.write_bytes(trained[1].read_bytes()[:1000])
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(ValueError) as error:
        classify_image.load(path)
    assert str(path) in str(error.value)


def test_a_network_from_a_gpu_classifies_on_a_cpu(trained, tmp_path):
    model, file = trained
    path = tmp_path / "net.pt"
    with mock.patch.object(torch.serialization, "location_tag", lambda _: "cuda:0"):
        torch.save(torch.load(file, weights_only=True), path)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    loaded, _ = classify_image.load(path)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())
