"""A pretrained network helps to learn letters, and what is frozen stays as it was."""

import re

import draw_images as draw_digits
import fine_tune_cnn
import numpy as np
import pytest
import torch
import train_cnn
from collection import run
from fine_tune_cnn import LETTERS, SAMPLES, WAYS, learn, start, train, train_mode
from PIL import ImageFont
from torch import nn

SCRIPT = "data/fine_tune_cnn.py"


def bits(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def letters():
    """Two images of each letter, and their labels."""
    return fine_tune_cnn.draw_images(LETTERS, count=2, seed=2)


@pytest.fixture(scope="module")
def pretrained():
    """A network that has seen digits for a while: its averages are not 0 and 1."""
    torch.manual_seed(0)
    model = fine_tune_cnn.make_model(10)
    learn(model, *fine_tune_cnn.draw_images("0123456789", count=5, seed=0), steps=10)
    return model


# The images and the network


def test_digits_are_those_of_draw_images():
    fonts = [ImageFont.load_default(28 * scale) for scale in (0.6, 0.7, 0.8, 0.9)]
    one, other = np.random.default_rng(0), np.random.default_rng(0)
    for digit in range(10):
        image = draw_digits.draw_digit(digit, 28, fonts, one)
        pixels = fine_tune_cnn.draw_character(str(digit), fonts, other)
        np.testing.assert_array_equal(pixels, np.asarray(image))


def test_network_is_that_of_train_cnn():
    networks = []
    for module in fine_tune_cnn, train_cnn:
        torch.manual_seed(0)
        networks.append(module.make_model(10))
    assert str(networks[0]) == str(networks[1])
    torch.testing.assert_close(bits(networks[0]), bits(networks[1]), rtol=0, atol=0)


def test_first_images_are_one_of_each_letter(letters):
    images, labels = letters
    assert images.shape == (20, 3, 28, 28) and images.max() <= 255
    assert labels.tolist() == [*range(10), *range(10)]
    fewer, _ = fine_tune_cnn.draw_images(LETTERS, count=1, seed=2)
    assert torch.equal(images[:10], fewer)
    assert not torch.equal(images[10:], fewer)
    other, _ = fine_tune_cnn.draw_images(LETTERS, count=1, seed=3)
    assert not torch.equal(other, fewer), "held-out letters are those of the training"


# What is trained, and what is not


def test_frozen_layers_are_the_same_bits_afterwards(pretrained, letters):
    """Weights and averages; the last layer, which is new, learns."""
    model = start("frozen layers", pretrained, 10)
    before = bits(model)
    learn(model, *letters, steps=5)
    for name, value in bits(model).items():
        assert torch.equal(value, before[name]) == (not name.startswith("6.")), name
        if not name.startswith("6."):
            assert torch.equal(value, pretrained.state_dict()[name])


def test_all_layers_learn(pretrained, letters):
    """From the pretrained ones, of which the copy that is trained is a copy."""
    kept = bits(pretrained)
    model = start("all layers", pretrained, 10)
    before = bits(model)
    assert all(torch.equal(before[k], kept[k]) for k in kept if k[:2] != "6.")
    learn(model, *letters, steps=5)
    assert not any(torch.equal(value, before[k]) for k, value in bits(model).items())
    assert all(torch.equal(value, kept[k]) for k, value in bits(pretrained).items())


def test_from_scratch_is_a_new_network(pretrained):
    torch.manual_seed(0)
    new = bits(fine_tune_cnn.make_model(10))
    torch.manual_seed(0)
    found = bits(start("from scratch", pretrained, 10))
    torch.testing.assert_close(found, new, rtol=0, atol=0)


@pytest.mark.parametrize("way", WAYS)
def test_last_layer_is_new(way, pretrained):
    """With as many outputs as there are classes now, and it learns."""
    last = start(way, pretrained, 7)[-1]
    assert last.weight.shape == (7, 128) and last.weight.requires_grad
    same_size = start(way, pretrained, 10)[-1]
    assert not torch.equal(same_size.weight, pretrained[-1].weight)


@pytest.mark.parametrize("way", WAYS)
def test_layers_that_learn_are_in_training_mode(way, pretrained):
    model = start(way, pretrained, 10).eval()
    train_mode(model)
    frozen = way == "frozen layers"
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [layer.training for layer in norms] == [not frozen] * 4
    assert model[-1].training


def test_frozen_layers_are_fixed_features(pretrained, letters):
    """The losses are those of one linear layer on features computed beforehand."""
    images, labels = letters
    torch.manual_seed(0)
    model = start("frozen layers", pretrained, 10)
    last = nn.Linear(128, 10)
    last.load_state_dict(model[-1].state_dict())
    found = [loss for _, loss in train(model, images, labels, steps=10)]

    with torch.no_grad():
        features = pretrained[:-1].eval()(images)
    optimizer = torch.optim.Adam(last.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=10)
    expected = []
    for _ in range(10):
        loss = nn.functional.cross_entropy(last(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        expected.append(loss.item())
    # All 20 images are one batch, in any order: what differs is rounding.
    assert found == pytest.approx(expected, rel=1e-3)
    assert found[-1] < found[0]


def test_training_mode_moves_the_averages_of_frozen_layers(pretrained, letters):
    """By a tenth of the way to the mean and variance of the batch, in each step."""
    images, labels = letters
    model = start("frozen layers", pretrained, 10)
    mean, var = model[0].running_mean.double(), model[0].running_var.double()
    learn(model, images, labels, steps=2, set_mode=nn.Module.train)
    pixels = images.double().transpose(0, 1).flatten(1)  # of each colour
    for _ in range(2):
        mean = 0.9 * mean + 0.1 * pixels.mean(1)
        var = 0.9 * var + 0.1 * pixels.var(1)
    # Sums of 15,680 pixels in float32: far from a tenth, the step that is looked for.
    torch.testing.assert_close(model[0].running_mean.double(), mean, rtol=1e-4, atol=0)
    torch.testing.assert_close(model[0].running_var.double(), var, rtol=1e-4, atol=0)

    # Four layers, each with a mean, a variance, and a count of its batches.
    model[-1] = pretrained[-1]
    assert fine_tune_cnn.changes(pretrained, model) == (0, 12)


def test_changes_are_counted(pretrained):
    model = start("all layers", pretrained, 10)
    model[-1] = pretrained[-1]
    assert fine_tune_cnn.changes(pretrained, model) == (0, 0)
    with torch.no_grad():
        model[0].weight[1] += 1
        model[1][1].running_var[2] += 1
    assert fine_tune_cnn.changes(pretrained, model) == (1, 1)


def test_accuracy_is_the_share_of_right_answers(pretrained, letters):
    """Given to each image by itself, whatever mode the network was in."""
    images, labels = letters
    with torch.no_grad():
        logits = torch.cat([pretrained.eval()(image[None]) for image in images])
    found = fine_tune_cnn.predict(pretrained.train(), images)
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
    guesses = zip(logits.argmax(1).tolist(), labels.tolist())
    right = sum(guess == label for guess, label in guesses)
    share = fine_tune_cnn.accuracy(pretrained.train(), images, labels)
    assert share == pytest.approx(right / 20)


# What the script prints and draws


@pytest.mark.parametrize("script", [SCRIPT])
def test_prints_what_the_page_says(script):
    """The bounds are far from what is found: 0.6 and 0.2 at one sample."""
    done = run(script)
    rows = re.findall(rf"^({'|'.join(WAYS)}) +(.+)$", done.stdout, re.MULTILINE)
    table = {way: [float(share) for share in cells.split()] for way, cells in rows}
    assert list(table) == WAYS and all(len(row) == 5 for row in table.values())
    scratch, frozen, tuned = table.values()
    assert frozen[0] > scratch[0] + 0.1 and frozen[0] > tuned[0] + 0.1
    assert tuned[-1] > 0.8 and tuned[2] > scratch[2] + 0.1

    lines = re.findall(
        r"^frozen, in (\S+) +changed parameters (\d+)  changed buffers +(\d+)  "
        r"logits of digits moved by (\S+)$",
        done.stdout,
        re.MULTILINE,
    )
    assert lines[0] == ("eval()", "0", "0", "0.0")
    assert lines[1][:3] == ("train()", "0", "12") and float(lines[1][3]) > 0.1


def test_others_are_other_images(monkeypatch, capsys):
    """What main() tests with is none of the images that it trains with."""
    drawn = []

    def draw_images(characters, count, seed):
        images, labels = real_draw_images(characters, count, seed)
        drawn.append({image.numpy().tobytes() for image in images})
        return images, labels

    real_draw_images = fine_tune_cnn.draw_images
    monkeypatch.setattr(fine_tune_cnn, "draw_images", draw_images)
    monkeypatch.setattr("sys.argv", ["", "--steps", "2"])
    fine_tune_cnn.main()
    assert "accuracy on other letters" in capsys.readouterr().out
    digits, other_digits, letters, other_letters = drawn
    assert digits.isdisjoint(other_digits) and letters.isdisjoint(other_letters)


def test_picture_shows_the_table():
    table = {way: [0.1 * i, 0.5, 0.6, 0.7, 0.8] for i, way in enumerate(WAYS)}
    (axes,) = fine_tune_cnn.draw(table).axes
    shown = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert shown == table
    assert all(list(line.get_xdata()) == SAMPLES for line in axes.lines)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == WAYS
