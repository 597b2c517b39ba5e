"""Synthetic photographs with the format of the Swedish traffic signs; no download.

    python data_scripts/make_traffic_like.py OUT --n 60 --seed 0

Round signs with a red border and the digits 50, 70 or 80, and other signs, are pasted on
photographs of scikit-image. Not roads: only the task, the folders and the annotations are alike.
"""

import functools
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from cpic._files import replace_file, write_text
from cpic.data import photograph

SCENES = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "rocket", "motorcycle_left")
LIMITS = ("50", "70", "80")
VISIBLE = ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED")


def sign(text: str, edge: int):
    """A round sign with a mask, as an RGBA picture."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGBA", (4 * edge, 4 * edge))
    draw, width = ImageDraw.Draw(picture), 4 * edge
    draw.ellipse((0, 0, width - 1, width - 1), fill=(200, 20, 30, 255))
    ring = width // 8
    draw.ellipse((ring, ring, width - ring, width - ring), fill=(250, 215, 60, 255))
    font = ImageFont.load_default(size=width // 2)
    draw.text((width / 2, width / 2), text, font=font, fill=(10, 10, 10, 255), anchor="mm")
    return picture.resize((edge, edge), Image.Resampling.LANCZOS)


@functools.cache
def pixels_of(name: str) -> np.ndarray:
    """A photograph, uint8."""
    return (255 * photograph(name, color=True).numpy()).round().astype(np.uint8)


def scene(size: tuple[int, int], rng: np.random.Generator):
    """A part of a photograph, scaled to a size (height, width)."""
    from PIL import Image

    pixels = pixels_of(SCENES[rng.integers(len(SCENES))])
    height, width = (int(n * rng.uniform(0.7, 1)) for n in pixels.shape[:2])
    top, left = (
        rng.integers(0, n - m + 1) for n, m in zip(pixels.shape, (height, width), strict=False)
    )
    part = pixels[top : top + height, left : left + width]
    return Image.fromarray(part).resize(size[::-1], Image.Resampling.BICUBIC)


def one(size: tuple[int, int], rng: np.random.Generator):
    """A photograph, and the cells of its annotation."""
    from PIL import ImageFilter

    picture, cells, taken = scene(size, rng), [], []
    kind = rng.integers(5)  # none, a limit, several, others only, hidden limits
    names = {0: [], 1: ["limit"], 2: ["limit", "limit", "other"], 3: ["other"], 4: ["hidden"]}[
        int(kind)
    ]
    for name in names:
        edge = int(size[0] * rng.uniform(0.05, 0.1))
        top, left = (int(rng.integers(0, n - edge)) for n in size)
        if any(abs(top - y) < 2 * edge and abs(left - x) < 2 * edge for y, x in taken):
            continue
        taken.append((top, left))
        text = LIMITS[rng.integers(3)] if name != "other" else "!"
        pasted = sign(text, edge)
        state = VISIBLE[rng.integers(1, 4)] if name == "hidden" else VISIBLE[0]
        if state != VISIBLE[0]:
            pasted = pasted.filter(ImageFilter.GaussianBlur(edge / 12))
        picture.paste(pasted, (left, top), pasted)
        box = ", ".join(f"{v:.6f}" for v in (left + edge, top + edge, left, top))
        title = ("OTHER", "OTHER") if name == "other" else ("PROHIBITORY", f"{text}_SIGN")
        cells.append(f"{state}, {box}, {title[0]}, {title[1]};")
    if rng.random() < 0.2:
        cells.append("MISC_SIGNS;")
    return picture, "".join(cells)


def main(out: str, n: int = 60, height: int = 960, width: int = 1280, seed: int = 0) -> None:
    """Write `Set1` (for training) and `Set2`, with their annotations.

    Args:
        out: folder to write to.
        n: photographs per set.
        height: rows of a photograph.
        width: columns of a photograph.
        seed: seed of all random choices.
    """
    for number in (1, 2):
        folder, lines = Path(out) / f"Set{number}", []
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(n):
            rng = np.random.default_rng((seed, number, k))
            picture, cells = one((height, width), rng)
            path = folder / f"{seed:04d}Image{k:06d}.jpg"
            replace_file(path, lambda file, p=picture: p.save(file, "JPEG", quality=92))
            lines.append(f"{path.name}:{cells}\n")
        write_text(folder / "annotations.txt", "".join(lines))
    print(f"2 sets of {n} photographs in {out}")


if __name__ == "__main__":
    auto_cli(main, as_positional=True)
