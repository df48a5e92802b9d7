"""Draw a labelled folder of images: digits in Pillow's own font.

Every digit gets a folder, OUT/zero/000.png and so on: the name of the folder is the
label. The digits are scaled, shifted and turned, in changing colours and under noise,
so that there is something to learn. OUT must be a new or an empty folder.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def draw_digit(digit, size, fonts, rng):
    """Return an image of a digit, (size, size) in RGB, as the generator rng has it."""
    # Dark paper and light ink; the middle of the digit is near that of the image.
    paper = tuple(rng.integers(0, 110, 3))
    ink = tuple(rng.integers(146, 256, 3))
    middle = tuple(size * rng.uniform(0.4, 0.6, 2))
    font = fonts[rng.integers(len(fonts))]
    image = Image.new("RGB", (size, size), paper)
    ImageDraw.Draw(image).text(middle, str(digit), ink, font, anchor="mm")

    # The corners that turn in from outside are paper as well.
    angle = rng.uniform(-20, 20)
    image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=paper)

    # Noise is added in floats, since bytes would wrap around at 0 and 255.
    noisy = np.asarray(image) + rng.normal(0, 20, (size, size, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--count", type=int, default=100, help="images per digit")
    parser.add_argument("--size", type=int, default=28, help="in pixels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    # One generator for everything: the same seed draws the same images.
    rng = np.random.default_rng(args.seed)

    # The font comes with Pillow and can be had in any size.
    scales = (0.6, 0.7, 0.8, 0.9)
    fonts = [ImageFont.load_default(args.size * scale) for scale in scales]

    try:
        args.out.mkdir(parents=True, exist_ok=True)
        if any(args.out.iterdir()):
            parser.error(f"{args.out} is not empty: name a new folder")

        for digit, name in enumerate(NAMES):
            (args.out / name).mkdir()
            for i in range(args.count):
                image = draw_digit(digit, args.size, fonts, rng)
                image.save(args.out / name / f"{i:03}.png")
    except OSError as error:
        parser.error(f"cannot draw into {args.out}: {error}")

    print(f"images  {len(NAMES) * args.count}")
    print(f"classes  {' '.join(NAMES)}")


if __name__ == "__main__":
    main()
