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
    *usage, line = done.stderr.splitlines()
    assert "Traceback" not in done.stderr and "error: " in line
    assert "loss" not in done.stdout
    return line


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


@pytest.mark.parametrize("what", ["file in it", "is a file"])
def test_drawing_leaves_alone_what_is_there(what, tmp_path):
    target = tmp_path / "precious"
    if what == "file in it":
        target.mkdir()
    (target / "notes.txt" if what == "file in it" else target).write_text("mine")
    before = contents(tmp_path)
    assert str(target) in refused(tmp_path, "data/draw_images.py", target)
    assert contents(tmp_path) == before


# Reading


def grey16(value):
    return Image.fromarray(np.full((9, 5), value, np.uint16))


# An image, and the colour as which it is to be read.
KINDS = {
    "rgb.png": (Image.new("RGB", (5, 9), (200, 100, 50)), (200, 100, 50)),
    "rgb.jpeg": (Image.new("RGB", (99, 64), (200, 100, 50)), (200, 100, 50)),
    "grey.png": (Image.new("L", (5, 9), 77), (77, 77, 77)),
    "grey.jpeg": (Image.new("L", (64, 64), 77), (77, 77, 77)),
    "bits.png": (Image.new("1", (5, 9), 1), (255, 255, 255)),
    "palette.png": (
        Image.new("RGB", (5, 9), (10, 20, 30)).convert("P", palette=1),
        (10, 20, 30),
    ),
    "cmyk.jpeg": (Image.new("CMYK", (64, 64), (0, 255, 255, 0)), (255, 0, 0)),
    "opaque.png": (Image.new("RGBA", (5, 9), (1, 2, 3, 255)), (1, 2, 3)),
    "film.gif": (Image.new("RGB", (5, 9), (255, 0, 0)), (255, 0, 0)),
    "pixel.png": (Image.new("RGB", (1, 1), (4, 5, 6)), (4, 5, 6)),
}
# Those that only data_loading.py reads with care.
DIFFICULT = {
    "grey16.png": (grey16(0x8040), (128, 128, 128)),
    "bright16.png": (grey16(0xFFFF), (255, 255, 255)),
    "big_endian16.tiff": (
        Image.frombytes("I;16B", (5, 9), b"\x80\x40" * 45),
        (128, 128, 128),
    ),
    "clear.png": (Image.new("RGBA", (5, 9), (1, 2, 3, 0)), (255, 255, 255)),
    "clear_grey.png": (Image.new("LA", (5, 9), (9, 0)), (255, 255, 255)),
}


@pytest.mark.parametrize("name", [*KINDS, *DIFFICULT])
def test_every_kind_of_image_is_read_in_its_colour(name, tmp_path):
    image, colour = (KINDS | DIFFICULT)[name]
    image.save(tmp_path / name)
    found = [data_loading.read_image(tmp_path / name, 32)]
    if name in KINDS:
        found.append(train_cnn.read_image(tmp_path / name))
    for pixels in found:
        assert (pixels.shape, pixels.dtype) == ((3, 32, 32), torch.uint8)
        # JPEG rounds colours to other ones near by.
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


def readers():
    return {
        "data_loading": lambda path: data_loading.read_image(path, 32),
        "train_cnn": train_cnn.read_image,
        "classify_image": classify_image.read_image,
    }


# What Pillow itself makes of these is black, or noise.
IN_32_BITS = {
    "I": np.linspace(0, 1e9, 64, dtype=np.int32).reshape(8, 8),
    "F": np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8),
}


@pytest.mark.parametrize("mode", IN_32_BITS)
@pytest.mark.parametrize("reader", readers())
def test_an_image_of_32_bits_is_refused(reader, mode, tmp_path):
    path = tmp_path / "image.tiff"
    image = Image.fromarray(IN_32_BITS[mode])
    assert image.mode == mode
    image.save(path)
    with pytest.raises(ValueError, match="32 bits") as error:
        readers()[reader](path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("reader", ["train_cnn", "classify_image"])
def test_an_image_of_16_bits_is_refused_by_the_plain_readers(reader, tmp_path):
    path = tmp_path / "image.png"
    grey16(0x8040).save(path)
    with pytest.raises(ValueError, match="16 or 32 bits"):
        readers()[reader](path)


def test_training_and_classifying_read_an_image_the_same(digits):
    for file in sorted(digits.glob("*/*"))[::7]:
        trained, classified = (
            train_cnn.read_image(file),
            classify_image.read_image(file),
        )
        assert torch.equal(trained, classified), "change read_image in both scripts"
        assert torch.equal(trained, data_loading.read_image(file, 32))


def damaged(folder, kind):
    """Put one file of a kind that cannot be read into a folder."""
    path = folder / f"bad{'.jpeg' if 'jpeg' in kind else '.png'}"
    Image.effect_noise((64, 64), 50).save(path)
    whole = path.read_bytes()
    if kind == "text":
        path.write_text("no image")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "damaged png":
        path.write_bytes(whole[:60] + b"\0" * 200 + whole[260:])
    else:
        path.write_bytes(whole[: len(whole) // 2])
    return path


DAMAGE = ["text", "empty", "folder", "half a png", "half a jpeg", "damaged png"]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("reader", readers())
def test_a_file_that_cannot_be_read_is_named(reader, kind, tmp_path):
    path = damaged(tmp_path, kind)
    with pytest.raises(ValueError) as error:
        readers()[reader](path)
    assert str(error.value).startswith(f"cannot read {path}: ")


READ_FOLDERS = ["data_loading", "train_cnn", "loading_speed"]


@pytest.mark.parametrize("script", READ_FOLDERS)
def test_a_broken_image_gets_one_line(script, copy):
    path = damaged(copy / "eight", "half a jpeg")
    for other in copy.glob("*/0[1-9]*"):
        other.unlink()
    line = refused(copy, f"data/{script}.py", "--images", copy)
    assert f"cannot read {path}: " in line


@pytest.mark.parametrize("script", READ_FOLDERS)
def test_a_folder_without_classes_gets_one_line(script, tmp_path):
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    line = refused(tmp_path, f"data/{script}.py", "--images", tmp_path)
    assert f"{tmp_path} needs " in line


def test_a_copy_without_the_drawing_script_says_what_is_missing(tmp_path):
    script = shutil.copy(ROOT / "data" / "train_cnn.py", tmp_path / "my_copy.py")
    done = run_in(tmp_path, script)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert str(tmp_path / "draw_images.py") in line


# Dataset and DataLoader


def test_hidden_and_empty_folders_are_no_classes(copy):
    """Jupyter, a Mac, and a Mac's zip file leave theirs beside the others."""
    classes = sorted(folder.name for folder in copy.iterdir())
    labels = sorted([*range(10)] * 10)
    for name in (".ipynb_checkpoints", ".AppleDouble", "__MACOSX"):
        shutil.copytree(copy / "zero", copy / name)
    (copy / "__MACOSX" / "zero").mkdir()  # as in a zip file
    (copy / "empty").mkdir()
    (copy / "zero" / ".DS_Store").write_text("not an image")

    dataset = data_loading.ImageFolder(copy, 8)
    assert dataset.classes == classes
    assert [dataset[i][1] for i in range(len(dataset))] == labels
    images, labels_read, classes_read = train_cnn.read_folder(copy)
    assert classes_read == classes
    assert labels_read.tolist() == labels
    assert len(images) == 100


def test_an_item_is_the_image_and_the_number_of_its_folder(digits):
    dataset = data_loading.ImageFolder(digits, 28)
    files = sorted(digits.glob("*/*.png"))
    classes = sorted(folder.name for folder in digits.iterdir())
    assert (len(dataset), dataset.classes) == (100, classes)
    for i in (0, 57, 99):
        image, label = dataset[i]
        assert classes[label] == files[i].parent.name
        with Image.open(files[i]) as original:
            pixels = np.asarray(original)
        assert np.array_equal(image.permute(1, 2, 0), pixels)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_change_neither_the_order_nor_the_images(method, digits):
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"{method} is not a way to start processes here")
    dataset = data_loading.ImageFolder(digits, 28)
    epochs = []
    for workers in (0, 1):
        loader = DataLoader(
            dataset,
            batch_size=16,
            shuffle=True,
            num_workers=workers,
            generator=torch.Generator().manual_seed(5),
            multiprocessing_context=method if workers else None,
            persistent_workers=workers > 0,
        )
        epochs += [list(loader), list(loader)]
    for first, second in ((0, 2), (1, 3)):
        for (a, b), (c, d) in zip(epochs[first], epochs[second], strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)
    assert not torch.equal(epochs[0][0][1], epochs[1][0][1])


def test_the_last_line_of_a_worker_names_the_file(copy):
    path = damaged(copy / "zero", "half a jpeg")
    dataset = data_loading.ImageFolder(copy, 28)
    loader = DataLoader(dataset, num_workers=1, multiprocessing_context="spawn")
    with pytest.raises(ValueError) as error:
        list(loader)
    assert f"cannot read {path}: " in str(error.value).splitlines()[-1]


def test_shared_batches_hold_every_image_once_though_the_reader_is_slow(digits):
    """A slot that was written again too early would show images of a later batch."""
    images = shared_batches.ImageFolder(digits, 28)
    expected = {image.numpy().tobytes(): label for image, label in images}
    loader = shared_batches.shared_loader(
        images, batch_size=8, workers=2, context="spawn"
    )
    buffers = loader.dataset.buffers
    for _ in range(2):
        seen = {}
        for slot, labels in loader:
            time.sleep(0.05)
            batch = buffers[slot, : len(labels)].numpy()
            found = zip(batch, labels.tolist(), strict=True)
            seen |= {image.tobytes(): label for image, label in found}
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
    images = torch.randint(256, (300, 3, 32, 32), dtype=torch.uint8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    together = train_cnn.predict(model, images)
    alone = train_cnn.predict(model, images[299:])
    torch.testing.assert_close(together[299:], alone)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_the_loss_of_an_epoch_is_the_mean_over_images():
    """With a learning rate of zero: as if all images were one batch after another."""
    torch.manual_seed(0)
    images = torch.randint(256, (10, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(10) % 2
    loader = DataLoader(list(zip(images, labels, strict=True)), batch_size=4)
    model = train_cnn.make_model(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    model.eval()
    loss = train_cnn.train_epoch(model, loader, optimizer, schedule)
    assert model.training, "train_epoch() has to call model.train()"
    with torch.no_grad():
        expected = sum(
            torch.nn.functional.cross_entropy(
                model(images[part].float()), labels[part], reduction="sum"
            ).item()
            for part in (slice(0, 4), slice(4, 8), slice(8, 10))
        )
    assert loss == pytest.approx(expected / 10, rel=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network whose batch normalization has seen images, and its file."""
    torch.manual_seed(0)
    model = train_cnn.make_model(10)
    model(torch.randint(256, (64, 3, 32, 32)).float())
    file = tmp_path_factory.mktemp("network") / "digits.pt"
    classes = [f"class {i}" for i in range(10)]
    train_cnn.save(model, classes, file)
    return model, classes, file


def test_a_saved_network_classifies_like_the_trained_one(trained, digits):
    model, classes, file = trained
    loaded, names = classify_image.load(file)
    assert names == classes
    for path in sorted(digits.glob("*/*"))[::30]:
        image = train_cnn.read_image(path)
        expected = train_cnn.predict(model, image[None]).softmax(1)[0]
        found = classify_image.classify(loaded, image)
        torch.testing.assert_close(found, expected)

        done = run_in(file.parent, "data/classify_image.py", file, path)
        name, probability = done.stdout.split("  probability ")
        assert name == classes[expected.argmax()]
        assert float(probability) == pytest.approx(expected.max().item(), abs=1e-4)
    assert os.listdir(file.parent) == [file.name]


def test_train_cnn_saves_a_network_that_classify_image_loads(digits, tmp_path):
    options = "--images", digits, "--epochs", "1", "--save", "net.pt"
    done = run_in(tmp_path, "data/train_cnn.py", *options)
    assert (done.returncode, done.stderr) == (0, "")
    _, classes = classify_image.load(tmp_path / "net.pt")
    assert classes == sorted(folder.name for folder in digits.iterdir())
    assert os.listdir(tmp_path) == ["net.pt"]


def test_the_picture_names_what_the_network_sees_and_marks_what_is_wrong():
    images = torch.zeros(12, 3, 32, 32, dtype=torch.uint8)
    labels = torch.zeros(12, dtype=torch.long)
    labels[[2, 7]] = 1
    logits = torch.tensor([[1.0, 0.0]]).repeat(12, 1)
    logits[7] = torch.tensor([2.0, 0.0])  # the worst
    figure = train_cnn.draw([2.0, 1.0], [0.5, 0.75], images, labels, logits, "ab")
    curves, *digits = figure.axes
    assert [line.get_ydata() for line in curves.lines] == [[2.0, 1.0], [0.5, 0.75]]
    assert [axes.get_title() for axes in digits] == ["a"] * 10
    colours = [axes.title.get_color() for axes in digits]
    assert colours == ["red", "red", *["black"] * 8]


# The reader's files


@unix
def test_a_full_disk_leaves_the_old_file_and_no_other(trained, tmp_path):
    """Let no file of this process grow beyond 100 kB for a moment."""
    import resource

    model, classes, _ = trained
    file = tmp_path / "net.pt"
    file.write_bytes(b"precious")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError):
            train_cnn.save(model, classes, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path) == {"net.pt": b"precious"}


@pytest.mark.parametrize("where", ["missing/file", "notes.txt/file", "."])
def test_an_output_that_cannot_be_written_is_refused_before_training(where, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    path = tmp_path / where
    line = refused(tmp_path, "data/train_cnn.py", "--save", path)
    assert f"cannot write {path}: name a file in a folder that exists" in line


@unix
def test_what_is_no_regular_file_is_not_replaced_by_one(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(os.devnull)
    assert not train_cnn.can_be_written(tmp_path / "fifo")
    assert not train_cnn.can_be_written(tmp_path / "link")
    assert train_cnn.can_be_written(tmp_path / "new.pt")


@pytest.mark.parametrize("kind", ["missing", "text", "foreign", "half", "a folder"])
def test_a_network_that_save_has_not_written_is_refused(kind, trained, tmp_path):
    path = tmp_path / "net.pt"
    if kind == "text":
        path.write_text("no network")
    elif kind == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    elif kind == "half":
        path.write_bytes(trained[2].read_bytes()[:1000])
    elif kind == "a folder":
        path.mkdir()
    with pytest.raises(ValueError) as error:
        classify_image.load(path)
    assert str(path) in str(error.value)


def test_a_foreign_network_gets_one_line(tmp_path):
    file = tmp_path / "net.pt"
    file.write_text("no network")
    line = refused(tmp_path, "data/classify_image.py", file, file)
    assert f"{file} is not a file that train_cnn.py has saved" in line


def test_a_network_from_a_gpu_classifies_on_a_cpu(trained, tmp_path):
    model, classes, file = trained
    path = tmp_path / "net.pt"
    with mock.patch.object(torch.serialization, "location_tag", lambda _: "cuda:0"):
        torch.save(torch.load(file, weights_only=True), path)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    loaded, _ = classify_image.load(path)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())
