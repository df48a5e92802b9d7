"""Draw a labelled folder of images: digits in Pillow's own font.

Every digit gets a folder, OUT/zero/000.png and so on: the name of the folder is the
label. The digits are scaled, shifted and turned, in changing colours and under noise,
so that there is something to learn. OUT must be a new or an empty folder.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
parser.add_argument("out", type=Path, help="the folder to make")
parser.add_argument("--count", type=int, default=100, help="per digit, default: 100")
parser.add_argument("--size", type=int, default=28, help="in pixels, default: 28")
parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
args = parser.parse_args()
# All is checked before anything is written.
for name, least in (("count", 1), ("size", 8), ("seed", 0)):
    if getattr(args, name) < least:
        parser.error(f"argument --{name}: must be {least} or more")
names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
try:
    args.out.mkdir(parents=True, exist_ok=True)
    if any(args.out.iterdir()):
        parser.error(f"argument out: {args.out} is not empty; name a new folder")
    for name in names:
        (args.out / name).mkdir()
except OSError as error:
    parser.error(f"argument out: {error}")

# One generator for everything: the same seed draws the same images.
rng = np.random.default_rng(args.seed)
# The font comes with Pillow and can be had in any size.
fonts = [ImageFont.load_default(args.size * scale) for scale in (0.6, 0.7, 0.8, 0.9)]
for digit, name in enumerate(names):
    for i in range(args.count):
        # Dark paper and light ink; the middle of the digit is near that of the image.
        paper, ink = rng.integers(0, 110, 3), rng.integers(146, 256, 3)
        middle = args.size * rng.uniform(0.4, 0.6, 2)
        image = Image.new("RGB", (args.size, args.size), tuple(paper))
        draw = ImageDraw.Draw(image)
        font = fonts[rng.integers(len(fonts))]
        draw.text(tuple(middle), str(digit), tuple(ink), font, anchor="mm")
        # The corners that turn in from outside are paper as well.
        image = image.rotate(
            rng.uniform(-20, 20), Image.Resampling.BILINEAR, fillcolor=tuple(paper)
        )
        # Noise is added in floats, since bytes would wrap around at 0 and 255.
        noisy = np.asarray(image) + rng.normal(0, 20, (args.size, args.size, 3))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        file = args.out / name / f"{i:03}.png"
        try:
            image.save(file)
        except OSError as error:
            parser.error(f"cannot write {file}: {error}")
print(f"images  {len(names) * args.count}")
print(f"classes  {' '.join(names)}")
