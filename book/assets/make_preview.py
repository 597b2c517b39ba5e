"""Draw the picture that other sites show for pages without one. Writes `book/_static/preview.png`.

python book/assets/make_preview.py
"""

from pathlib import Path

import matplotlib
import torch

from cpic import data
from cpic.choose import choose
from cpic.tt import dense_entries

OUT = Path(__file__).parents[1] / "_static" / "preview.png"


def main() -> None:
    """A slice, and the voxels that coarse to fine reads of it."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    image = data.mni152("t1").read()[:, :, 90].double()
    found = choose(dense_entries(image[None]), image.shape, by="coarse-to-fine", budget=0.05)
    x, y = found.positions[0].unbind(-1)
    shown = torch.full_like(image, float("nan"))
    shown[x, y] = image[x, y]
    figure, panels = plt.subplots(1, 2, figsize=(12, 6.3), dpi=100, facecolor="black")
    for panel, picture in zip(panels, (image, shown), strict=True):
        panel.imshow(picture.T, cmap="gray", origin="lower", vmin=0, vmax=float(image.max()))
        panel.set_axis_off()
        panel.set_facecolor("black")
    figure.subplots_adjust(0.02, 0.02, 0.98, 0.98, 0.02)
    figure.savefig(OUT, facecolor="black")


if __name__ == "__main__":
    main()
