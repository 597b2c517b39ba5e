"""Sheets of generated images, and the generator as a file for other programs."""

import copy
import dataclasses
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from cpic._files import replace_file
from cpic.images._sheet import tiled
from cpic.nn import spectral
from cpic.nn.generative import Generator, sheet
from cpic.train.results._results import writing
from cpic.train.tasks._watch import Watch

_SIDE = 8
_OPSET = 18


@dataclasses.dataclass(eq=False)
class Outputs:
    """What a run writes besides checkpoints and tables.

    Args:
        watch: Writes losses, spectra and pictures.
        sheets_every: Steps between sheets.
        interpolation: Path between latent vectors, "slerp" or "lerp".
        onnx: Whether the best generator is exported.
        seed: Seed of the latent vectors of sheets.
    """

    watch: Watch
    sheets_every: int
    interpolation: str
    onnx: bool
    seed: int

    @property
    def exported(self) -> Path:
        """The file of the best generator."""
        return self.watch.folder / "generator_best.onnx"

    def draw_sheets(self, generator: Generator, *, done: int) -> None:
        """Write sheets of samples and of paths between four, the same ones each time and others."""
        if done % self.sheets_every:
            return
        for name, seed in (("fixed", self.seed), ("random", self.seed + 1 + done)):
            draw = torch.Generator().manual_seed(seed)
            latent = torch.randn(_SIDE**2, generator.n_latent, generator=draw)
            corners = torch.randn(4, generator.n_latent, generator=draw)
            between = sheet(corners, side=_SIDE, path=self.interpolation)
            for what, vectors in (("samples", latent), ("interpolation", between)):
                self.watch.save(f"{what}_{name}", _sheet(generator, vectors), done)

    def export(self, generator: Generator) -> None:
        """Write the generator in ONNX: from `z` and, if conditional, `condition` to `rgb`."""
        if not self.onnx:
            return
        content = onnx_bytes(generator)
        with writing(self.exported):
            replace_file(self.exported, lambda file: file.write(content))


@torch.no_grad()
def _sheet(generator: Generator, latent: Tensor) -> Tensor:
    """Images of latent vectors side by side; of a conditional generator, one row a class."""
    was = generator.training
    generator.eval()
    device = next(generator.parameters()).device
    labels = []
    if generator.n_classes is not None:
        rows = min(generator.n_classes, 10)
        labels = [torch.arange(rows, device=device).repeat_interleave(_SIDE)]
        latent = latent[:_SIDE].repeat(rows, 1)
    pixels = generator.pixels(latent.to(device), *labels)
    generator.train(was)
    return tiled(pixels, columns=_SIDE)


class _Pixels(nn.Module):
    """A generator of pixels, for export."""

    def __init__(self, generator: Generator):
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        images = self.generator(z, condition)
        return (images * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def onnx_bytes(generator: Generator) -> bytes:
    """A generator of pixels as an ONNX file, for any number of images, with plain weights.

    Raises:
        ImportError: If onnx or onnxscript is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"onnx=true needs {error.name}; run `pip install onnx onnxscript`, or set onnx=false."
        ) from error
    plain = copy.deepcopy(generator).cpu().eval()
    if any(row.kind != "plain" for row in spectral.report(plain)):
        spectral.remove(plain)
    inputs = [torch.zeros(2, plain.n_latent)]
    names = ["z"]
    if plain.n_classes is not None:
        inputs.append(torch.zeros(2, dtype=torch.long))
        names.append("condition")
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Pixels(plain),
            tuple(inputs),
            dynamo=True,
            input_names=names,
            output_names=["rgb"],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=_OPSET,
            verbose=False,
        )
    file = io.BytesIO()
    program.save(file)  # type: ignore[union-attr]
    return file.getvalue()
