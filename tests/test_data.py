"""Images of all kinds are read right, broken ones are named, workers change nothing."""

import contextlib
import importlib
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import time
from unittest import mock

import apart
import numpy as np
import pytest
import torch
from collection import ROOT, edited, execute, finished, losses, run_python, source
from PIL import Image
from torch.utils.data import DataLoader

sys.path.insert(0, str(ROOT / "data"))  # spawn and forkserver hand it on to workers
DRAW, LOAD, SHARE, TRAIN = (
    f"data/{name}.py"
    for name in ("draw_images", "data_loading", "shared_batches", "train_cnn")
)
READERS = [LOAD, TRAIN]
ALL_READERS = [*READERS, SHARE]
unix = pytest.mark.skipif(sys.platform == "win32", reason="what Windows has not")


def module(script):
    """Import a script that does nothing when it is imported."""
    return importlib.import_module(script.removeprefix("data/").removesuffix(".py"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of ten drawn digits of each kind."""
    folder = tmp_path_factory.mktemp("images") / "digits"
    command = [sys.executable, ROOT / DRAW, folder, "--count", "10"]
    subprocess.run(command, check=True, timeout=60)
    return folder


def contents(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def fails_with_one_line(captured, script, *argv):
    """Execute a script that has to refuse, and return what it says."""
    with pytest.raises(SystemExit) as exit:
        execute(script, argv=[str(word) for word in argv])
    assert exit.value.code == 2
    (line,) = captured.readouterr().err.splitlines()
    return line


@contextlib.contextmanager
def full_disk(size):
    """Let no file grow beyond this size, the one that capfd writes included."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_seed_decides_what_is_drawn(digits, tmp_path):
    for seed, same in (("0", True), ("1", False)):
        folder = tmp_path / seed
        execute(DRAW, argv=[str(folder), "--count", "10", "--seed", seed])
        assert list(contents(folder)) == list(contents(digits))
        assert (contents(folder) == contents(digits)) is same


def test_drawn_images_have_the_size_and_the_number_asked_for(tmp_path):
    execute(DRAW, argv=[str(tmp_path / "new"), "--count", "2", "--size", "40"])
    assert len(contents(tmp_path / "new")) == 20
    with Image.open(tmp_path / "new" / "seven" / "001.png") as image:
        assert (image.size, image.mode) == ((40, 40), "RGB")


@pytest.mark.parametrize("what", ["file in it", "is a file"])
def test_drawing_leaves_alone_what_is_there(what, tmp_path, capfd):
    target = tmp_path / "precious"
    if what == "file in it":
        target.mkdir()
    (target / "notes.txt" if what == "file in it" else target).write_text("mine")
    before = contents(tmp_path)
    assert str(target) in fails_with_one_line(capfd, DRAW, target)
    assert contents(tmp_path) == before


@unix
def test_drawing_on_a_full_disk_names_the_file(tmp_path, capsys):
    with full_disk(100):
        line = fails_with_one_line(capsys, DRAW, tmp_path / "new")
    assert str(tmp_path / "new" / "zero" / "000.png") in line


def grey16(value):
    return Image.fromarray(np.full((9, 5), value, np.uint16))


KINDS = {
    "rgb.png": (Image.new("RGB", (5, 9), (200, 100, 50)), (200, 100, 50)),
    "rgb.jpeg": (Image.new("RGB", (99, 64), (200, 100, 50)), (200, 100, 50)),
    "grey.png": (Image.new("L", (5, 9), 77), (77, 77, 77)),
    "grey.jpeg": (Image.new("L", (64, 64), 77), (77, 77, 77)),
    "grey16.png": (grey16(0x8040), (128, 128, 128)),
    "bright16.png": (grey16(0xFFFF), (255, 255, 255)),
    "big_endian16.tiff": (
        Image.frombytes("I;16B", (5, 9), b"\x80\x40" * 45),
        (128, 128, 128),
    ),
    "bits.png": (Image.new("1", (5, 9), 1), (255, 255, 255)),
    "palette.png": (
        Image.new("RGB", (5, 9), (10, 20, 30)).convert("P", palette=1),
        (10, 20, 30),
    ),
    "cmyk.jpeg": (Image.new("CMYK", (64, 64), (0, 255, 255, 0)), (255, 0, 0)),
    "opaque.png": (Image.new("RGBA", (5, 9), (1, 2, 3, 255)), (1, 2, 3)),
    "clear.png": (Image.new("RGBA", (5, 9), (1, 2, 3, 0)), (255, 255, 255)),
    "clear_grey.png": (Image.new("LA", (5, 9), (9, 0)), (255, 255, 255)),
    "film.gif": (Image.new("RGB", (5, 9), (255, 0, 0)), (255, 0, 0)),
    "pixel.png": (Image.new("RGB", (1, 1), (4, 5, 6)), (4, 5, 6)),
}


@pytest.fixture(scope="module", params=READERS)
def read(request, digits):
    """The read_image of a script, with the layout (size, size, 3)."""
    if request.param == LOAD:
        return module(LOAD).read_image
    argv = ["--images", str(digits), "--epochs", "1"]
    function = execute(TRAIN, argv=argv)["read_image"]
    return lambda path, size: function(path, size).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_image_is_read_in_its_colour(read, name, tmp_path):
    image, colour = KINDS[name]
    image.save(tmp_path / name)
    pixels = read(tmp_path / name, 8)
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)
    assert np.abs(pixels.astype(int) - colour).max() <= 3


def test_a_photo_is_turned_the_right_way_up(read, tmp_path):
    """Orientation 6: the camera was held so that the left side is the real top."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.jpeg", exif=exif)
    turned = read(tmp_path / "photo.jpeg", 8)
    assert turned[:3].min() > 200
    assert turned[5:].max() < 50


@pytest.mark.parametrize("name", [name for name in KINDS if "16" in name])
def test_sixteen_bits_are_read_in_shared_batches_as_well(name, tmp_path):
    image, colour = KINDS[name]
    (tmp_path / "grey").mkdir()
    image.save(tmp_path / "grey" / name)
    dataset = module(SHARE).SharedImages(tmp_path, 8, slots=1, batch_size=1)
    assert dataset[0, [0]] == (0, [0])
    assert (dataset.buffers == torch.tensor(colour)).all()


# What Pillow itself makes of these is black, or noise.
IN_32_BITS = {
    "I": np.linspace(0, 1e9, 64, dtype=np.int32).reshape(8, 8),
    "F": np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8),
}


@pytest.mark.parametrize("mode", IN_32_BITS)
@pytest.mark.parametrize("script", ALL_READERS)
def test_an_image_of_32_bits_is_refused(script, mode, copy, capfd):
    path = copy / "zero" / "000.tiff"
    image = Image.fromarray(IN_32_BITS[mode])
    assert image.mode == mode
    image.save(path)
    if script == SHARE:  # its main() has this line from a worker, as tested below
        dataset = module(SHARE).SharedImages(copy, 8, slots=1, batch_size=100)
        with pytest.raises(ValueError) as error:
            dataset[0, range(100)]
        line = str(error.value)
    else:
        line = fails_with_one_line(capfd, script, "--images", copy)
    assert str(path) in line and "32 bits" in line


def test_both_readers_agree_on_every_image(digits, tmp_path):
    argv = ["--images", str(digits), "--epochs", "1"]
    other = execute(TRAIN, argv=argv)["read_image"]
    for file in sorted(digits.glob("*/*"))[::7]:
        ours = module(LOAD).read_image(file, 20)
        assert np.array_equal(ours, other(file, 20).permute(1, 2, 0).numpy())


def damaged(folder, kind):
    """Put one file of a kind that cannot be read into a folder of images."""
    good = Image.effect_noise((64, 64), 50)
    path = folder / "zero" / f"bad{'.jpeg' if 'jpeg' in kind else '.png'}"
    good.save(path)
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


@pytest.fixture
def copy(digits, tmp_path):
    """A copy of the digits that a test may spoil."""
    for name, data in contents(digits).items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "images"


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("script", READERS)
def test_a_file_that_cannot_be_read_is_named(script, kind, copy, capfd):
    path = damaged(copy, kind)
    assert str(path) in fails_with_one_line(capfd, script, "--images", copy)


def test_a_worker_names_the_file_that_it_cannot_read(copy):
    path = damaged(copy, "half a jpeg")
    run = finished((SHARE, "--images", str(copy)))
    (line,) = run.stderr.splitlines()
    assert run.returncode == 2
    assert str(path) in line


@pytest.mark.parametrize("kind", ["missing", "empty", "no classes", "empty class"])
@pytest.mark.parametrize("script", ALL_READERS)
def test_a_folder_without_classes_is_refused(script, kind, tmp_path, capfd):
    folder = tmp_path / "images"
    if kind != "missing":
        folder.mkdir()
    if kind == "no classes":
        Image.new("RGB", (8, 8)).save(folder / "a.png")
    if kind == "empty class":
        (folder / "cats").mkdir()
    assert str(folder) in fails_with_one_line(capfd, script, "--images", folder)


@pytest.mark.parametrize("script", ALL_READERS)
def test_hidden_and_empty_folders_are_no_classes(script, copy):
    """Jupyter, a Mac, and a Mac's zip file leave theirs beside the others."""
    classes = sorted(folder.name for folder in copy.iterdir())
    for name in (".ipynb_checkpoints", ".AppleDouble", "__MACOSX"):
        shutil.copytree(copy / "zero", copy / name)
    (copy / "__MACOSX" / "zero").mkdir()  # as in a zip file
    (copy / "empty").mkdir()
    (copy / "almost_empty").mkdir()
    (copy / "almost_empty" / ".DS_Store").write_text("not an image")
    if script == TRAIN:
        found = execute(TRAIN, argv=["--images", str(copy), "--epochs", "1"])
        names = [found["classes"][label] for label in found["labels"]]
        assert (found["classes"], len(found["files"])) == (classes, 100)
        assert names == [file.parent.name for file in found["files"]]
        return
    if script == LOAD:
        dataset = module(LOAD).ImageFolder(copy, 8)
        assert [label for _, label in dataset.files] == sorted([*range(10)] * 10)
    else:
        dataset = module(SHARE).SharedImages(copy, 8, slots=1, batch_size=100)
        assert dataset[0, range(100)][1] == sorted([*range(10)] * 10)
    assert (dataset.classes, len(dataset.files)) == (classes, 100)


def test_items_are_sorted_labelled_and_hidden_files_are_left_out(copy):
    (copy / "zero" / ".DS_Store").write_text("not an image")
    dataset = module(LOAD).ImageFolder(copy, 28)
    assert len(dataset) == 100
    assert dataset.classes == sorted(dataset.classes)
    names = [f"{path.parent.name}/{path.name}" for path, _ in dataset.files]
    assert names == sorted(names)
    for i in (0, 57, 99):
        image, label = dataset[i]
        assert dataset.classes[label] == dataset.files[i][0].parent.name
        with Image.open(dataset.files[i][0]) as original:
            assert np.array_equal(image, original)


# The one that this Python takes by itself is run for the README.
METHODS = set(multiprocessing.get_all_start_methods())
METHODS -= {multiprocessing.get_context().get_start_method()}
SPEEDS = '((0, ""), (1, ""), (2, ""), (2, "persistent"))'


@pytest.mark.parametrize("method", sorted(METHODS))
def test_workers_start_by_every_method(method, digits, tmp_path):
    """One of them is enough to see that the script can be imported by it."""
    copy = tmp_path / "copy_of_script.py"
    one = edited(source(LOAD), (SPEEDS, '((0, ""), (1, ""))'))
    copy.write_text(one, encoding="utf-8")
    words = str(copy), "--images", str(digits), "--start-method", method
    run = run_python(words, tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    speeds = [line for line in run.stdout.splitlines() if line.startswith("workers")]
    assert len(speeds) == 2


def test_workers_change_neither_the_order_nor_the_images(digits):
    dataset = module(LOAD).ImageFolder(digits, 28)
    epochs = []
    for workers in (0, 2):
        loader = DataLoader(
            dataset,
            16,
            shuffle=True,
            collate_fn=tuple,
            generator=torch.Generator().manual_seed(5),
            num_workers=workers,
            multiprocessing_context="forkserver" if workers else None,
        )
        epochs += [list(loader), list(loader)]
    for first, second in ((0, 2), (1, 3)):
        for (a, b), (c, d) in zip(epochs[first], epochs[second], strict=True):
            assert np.array_equal(a, c)
            assert np.array_equal(b, d)
    assert not np.array_equal(epochs[0][0][1], epochs[1][0][1])


def test_shared_batches_hold_every_image_once_though_the_reader_is_slow(digits):
    """A slot that was written again too early would show images of a later batch."""
    loader = module(SHARE).make_loader(digits, 28, batch_size=8, context="forkserver")
    dataset = loader.dataset
    expected = {}
    for file in dataset.files:
        with Image.open(file) as image:
            expected[np.asarray(image).tobytes()] = dataset.classes.index(
                file.parent.name
            )
    for _ in range(2):
        seen = {}
        for slot, labels in loader:
            time.sleep(0.05)
            images = dataset.buffers[slot, : len(labels)].numpy()
            seen |= {x.tobytes(): y for x, y in zip(images, labels, strict=True)}
        assert seen == expected


@pytest.mark.parametrize("command", [(TRAIN,)], ids=" ".join)
def test_cnn_recognizes_98_percent_of_the_digits_held_out(run):
    *_, last = run.stdout.splitlines()
    assert float(last.split("accuracy ")[1]) >= 0.98
    assert len(losses(run.stdout)) == 10


def test_a_fork_and_a_process_of_its_own_train_the_same(digits):
    command = TRAIN, "--images", str(digits), "--epochs", "1"
    run, real_run = finished(command), finished(command, real=True)
    assert losses(run.stdout)
    assert vars(run) | {"args": None} == vars(real_run) | {"args": None}


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """The variables of a short training, and the file that it has saved."""
    file = tmp_path_factory.mktemp("network") / "digits.pt"
    words = ["--images", digits, "--epochs", "8", "--save", file]
    words += ["--plot", file.with_suffix(".png")]
    return execute(TRAIN, argv=[str(word) for word in words]), file


def classified(file, image, capfd):
    """Return what --classify prints."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit:
        execute(TRAIN, argv=["--classify", str(file), str(image)])
    assert exit.value.code == 0
    return capfd.readouterr().out


def test_saved_network_is_the_trained_one(trained, capfd):
    variables, file = trained
    net = variables["net"]
    saved = torch.load(file, weights_only=True)
    torch.testing.assert_close(saved["net"], net.state_dict(), rtol=0, atol=0)
    for path in variables["files"][::30]:
        scores = net(variables["read_image"](path)[None].float()).softmax(1)[0]
        label, probability = classified(file, path, capfd).split("  probability ")
        assert label == variables["classes"][scores.argmax()]
        assert float(probability) == pytest.approx(scores.max().item(), abs=1e-4)


def test_plot_is_a_picture(trained):
    with Image.open(trained[1].with_suffix(".png")) as picture:
        picture.load()
        assert picture.format == "PNG"
    assert len(list(trained[1].parent.iterdir())) == 2


@unix
def test_a_full_disk_leaves_the_old_file_and_no_other(digits, tmp_path, capsys):
    file = tmp_path / "net.pt"
    file.write_bytes(b"precious")
    argv = "--images", digits, "--epochs", "1", "--save", file
    with full_disk(100_000):
        line = fails_with_one_line(capsys, TRAIN, *argv)
    assert f"cannot write {file}: " in line
    assert contents(tmp_path) == {"net.pt": b"precious"}


@unix
@pytest.mark.parametrize("option", ["--save", "--plot"])
def test_what_is_no_regular_file_is_not_replaced_by_one(option, tmp_path, capfd):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(os.devnull)
    for name in ("fifo", "link"):
        line = fails_with_one_line(capfd, TRAIN, option, tmp_path / name)
        assert str(tmp_path / name) in line
    assert stat.S_ISFIFO((tmp_path / "fifo").lstat().st_mode)
    assert (tmp_path / "link").is_symlink()
    assert not os.path.isfile(os.devnull)


@pytest.mark.parametrize("option", ["--save", "--plot"])
@pytest.mark.parametrize("where", ["missing/file", "notes.txt/file", "."])
def test_an_output_that_cannot_be_written_is_refused_at_once(
    option, where, tmp_path, capfd
):
    (tmp_path / "notes.txt").write_text("mine")
    path = tmp_path / where
    line = fails_with_one_line(capfd, TRAIN, option, path)
    assert f"cannot write {path}: name a file in a folder that exists" in line


@pytest.mark.parametrize("kind", ["missing", "text", "foreign", "half"])
def test_a_network_that_save_has_not_written_is_refused(kind, trained, tmp_path, capfd):
    path = tmp_path / "net.pt"
    if kind == "text":
        path.write_text("no network")
    elif kind == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    elif kind == "half":
        path.write_bytes(trained[1].read_bytes()[:1000])
    capfd.readouterr()
    line = fails_with_one_line(capfd, TRAIN, "--classify", path, path)
    assert str(path) in line


def test_a_network_from_a_gpu_classifies_on_a_cpu(trained, tmp_path, capfd):
    variables, file = trained
    path = tmp_path / "net.pt"
    with mock.patch.object(torch.serialization, "location_tag", lambda _: "cuda:0"):
        torch.save(torch.load(file, weights_only=True), path)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    image = variables["files"][0]
    assert classified(path, image, capfd) == classified(file, image, capfd)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_one_flipped_bit_in_the_weights_is_noticed(share, trained, tmp_path, capfd):
    """PyTorch itself takes it for another weight, without a word."""
    variables, file = trained
    data = bytearray(file.read_bytes())
    data[int(share * len(data))] ^= 64
    path = tmp_path / "net.pt"
    path.write_bytes(data)
    torch.load(path, weights_only=True)
    line = fails_with_one_line(capfd, TRAIN, "--classify", path, variables["files"][0])
    assert f"{path} is damaged" in line


@pytest.mark.parametrize("script", ALL_READERS)
def test_a_copy_without_the_drawing_script_says_what_is_missing(script, tmp_path):
    copy = str(tmp_path / "copy_of_script.py")
    code, out, err = apart.outcome(script, source(script), [], copy)
    (line,) = err.splitlines()
    assert (code, out) == (2, "")
    assert "error: " in line and str(tmp_path / "draw_images.py") in line


@unix
@pytest.mark.parametrize("script", ALL_READERS)
def test_a_link_finds_the_drawing_script_and_says_why_it_fails(
    script, tmp_path, monkeypatch
):
    def fails(command, **options):
        commands.append(command)
        stderr = "Traceback (most recent call last):\nOSError: the reason\n"
        return subprocess.CompletedProcess(command, 1, stderr=stderr)

    commands = []
    monkeypatch.setattr(subprocess, "run", fails)
    link = tmp_path / "link.py"
    link.symlink_to(ROOT / script)
    code, _, err = apart.outcome(script, source(script), [], str(link))
    (line,) = err.splitlines()
    ((_, draw, *_),) = commands
    assert (code, draw) == (2, ROOT / DRAW)
    assert str(draw) in line and line.endswith("OSError: the reason")
