"""Learning: data, C-PIC, cohorts, costs, scale."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpic.check._verdict import Check, like, near, number, numbers


def _stretch(given: Any, about: tuple[Sequence[int], int]) -> str:
    """By how much a head is stretched along z relative to x, when a scan is resampled to a cube."""
    factor, (shape, _) = number(given), about
    if factor is None:
        return "the answer is one number, a factor."
    exact = (shape[0] - 1) / (shape[2] - 1)
    if near(factor, 1 / exact):
        return "this is how x is stretched relative to z."
    return "" if near(factor, exact) else "compare the voxel sizes along x and z, in mm."


def _likelihood(given: Any, _: Any) -> str:
    """The modified log likelihood of three quantiles and a measured value."""
    cases = [
        ((2500.0, 2600.0, 2700.0, 2550.0), "check the signs and the factors of the formula"),
        ((2500.0, 2600.0, 2700.0, 4000.0), "an error above 1000 ml counts as 1000 ml"),
        ((2590.0, 2600.0, 2610.0, 2600.0), "a width below 70 ml counts as 70 ml"),
    ]
    if not callable(given):
        return "the answer is a function of low, middle, high and measured values, all tensors."
    for values, hint in cases:
        low, middle, high, measured = values
        sigma, delta = max(high - low, 70), min(abs(middle - measured), 1000)
        exact = -(2**0.5) * delta / sigma - math.log(2**0.5 * sigma)
        try:
            found = number(given(*(torch.tensor([value]) for value in values)))
        except Exception as error:  # whatever a function of a reader raises
            return f"calling it with four tensors raised {type(error).__name__}: {error}."
        if found is None or not near(found, exact, 1e-4):
            return f"for low, middle, high and measured {values} it is wrong: {hint}."
    return ""


def _flip(given: Any, image: Any) -> str:
    """A NIfTI image with the first axis reversed and every voxel where it was in mm."""
    try:
        labels, affine = np.asarray(given.dataobj), np.asarray(given.affine, dtype=float)
        same = np.array_equal(labels[::-1], np.asarray(image.dataobj))
        corners = np.array([[i, j, k, 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)]).T
        mirrored = corners.copy()
        mirrored[0] = labels.shape[0] - 1 - corners[0]
        moved = np.abs(affine @ mirrored - np.asarray(image.affine) @ corners).max()
    except (AttributeError, TypeError, ValueError, IndexError):
        return "the answer is an image of nibabel, with its array and its affine."
    if not same:
        return "its array is not that of the patient with the first axis reversed."
    if np.array_equal(affine, image.affine):
        return "the affine is the old one: left and right are swapped."
    return "" if moved <= 1e-3 else f"voxels are up to {moved:.0f} mm from where they were."


def _robust(given: Any, values: Tensor) -> str:
    """A scaling of a chest that one voxel of metal does not change."""
    metal, lung = values.clone(), (values > -950) & (values < -500)
    metal.view(-1)[0] = 3071
    lung.view(-1)[0] = False
    try:
        scaled, other = (like(given(each), values) for each in (values, metal))
    except Exception as error:  # whatever a function of a reader raises
        return f"calling it with the values of a scan raised {type(error).__name__}: {error}."
    if scaled is None or other is None:
        return "the answer is a function that returns a tensor of the shape of the scan."
    if torch.equal(scaled, values.double()):
        return "it returns the values in HU: nothing is scaled."
    if not scaled[lung].std() > 0:
        return "no contrast is left in the lung."
    ratio = float(other[lung].std() / scaled[lung].std())
    return (
        "" if near(ratio, 1) else f"with one voxel of metal, {ratio:.0%} of the contrast is left."
    )


def _by_histogram(given: Any, target: Tensor) -> str:
    """Predictions of test volumes that are as good as those from a histogram."""
    guess = like(given, target)
    if guess is None:
        return f"the answer is a tensor of {len(target)} predictions, one for each test volume."
    error = float((guess - target).norm() / target.norm())
    if error == 0:
        return "these are the targets themselves."
    hint = f"the error is {error:.2f}: standardize the bins by the training volumes, then fit."
    return "" if error < 0.4 else hint


def _centered(given: Any, about: tuple[Tensor, Tensor]) -> str:
    """How many times smaller a feature is, in units of its standard deviation."""
    times, (raw, other) = number(given), about
    if times is None:
        return "the answer is one number, how many times smaller."
    means = abs(float(raw.mean() / other.mean()))
    exact = means * float(other.std() / raw.std())
    if near(times, exact):
        return ""
    if near(times, means):
        return "these are the means: divide each by the standard deviation of its feature."
    return "this is the other way around." if near(times, 1 / exact) else "it is another factor."


def _fold_error(given: Any, mean: float) -> str:
    """The error over a fold, from the mean of errors over batches of two patients."""
    error, factor = number(given), math.pi**0.5 / 2
    if error is None:
        return "the answer is one number, in days."
    if near(error, mean * factor):
        return "which is smaller, the mean of roots or the root of the mean?"
    hint = "simulate many batches of two: how large is the mean of their errors?"
    return "" if near(error, mean / factor) else hint


def _held_out(given: Any, pieces: Sequence[Mapping[str, Sequence[str]]]) -> str:
    """In how many validation sets each patient is."""
    if not isinstance(given, Mapping):
        return "the answer is a dict or Counter: patient, and number of validation sets."
    held = Counter(patient for piece in pieces for patient in piece["validation"])
    everyone = {patient for piece in pieces for part in piece.values() for patient in part}
    if set(given) != everyone:
        return f"it has {len(given)} patients, the folds have {len(everyone)}."
    wrong = [patient for patient in everyone if given[patient] != held[patient]]
    return f"the number of {min(wrong)} is wrong." if wrong else ""


def _minimizers(given: Any, about: tuple[Tensor, Tensor]) -> str:
    """Constants with the smallest pinball loss: the quantiles of the targets."""
    target, levels = about
    found = numbers(given)
    if found is None or len(found) != len(levels):
        return f"the answer is {len(levels)} constants, one for each level."
    slack = 0.02 * float(target.max() - target.min())
    for level, value in zip(levels.tolist(), found, strict=True):
        if float((target < value - slack).double().mean()) > level:
            return f"at level {level:g} a smaller constant has a smaller loss."
        if float((target <= value + slack).double().mean()) < level:
            return f"at level {level:g} a larger constant has a smaller loss."
    return ""


def _leak(given: Any, target: Tensor) -> str:
    """The targets, predicted without any fitting."""
    guess = like(given, target)
    if guess is None:
        return f"the answer is a tensor of {len(target)} predictions, one for each visit."
    error = float((guess - target).abs().max())
    hint = f"the largest error is {error:.2g}: in which ratio does the normal value cancel?"
    return "" if error <= 1e-3 else hint


def _width(given: Any, score: Callable[[float], float]) -> str:
    """The factor of a width with the best score, from the score of any factor."""
    factor = number(given)
    if factor is None or not 0 < factor < math.inf:
        return "the answer is one positive number, the factor."
    here = score(factor)
    for times, word in ((0.8, "narrower"), (1.25, "wider")):
        if score(times * factor) > here:
            return f"{word} distances score better on the training visits."
    return ""


def _saved(given: Any, rows: Sequence[Mapping[str, float]]) -> str:
    """The share of the memory that chunks save, from rows of a record."""
    share, (whole, parts) = number(given), rows
    if share is None:
        return "the answer is one number, the share of the memory that is saved."
    exact = 1 - parts["MB"] / whole["MB"]
    if near(share, 1 - exact):
        return "this is the share that is left."
    if near(share, 100 * exact):
        return "give a share between 0 and 1."
    return "" if near(share, exact, 0.02) else "compare the MB of the two rows."


def _price(given: Any, seconds: float) -> str:
    """Euros for 100 000 steps on a core, and the milliseconds in which a GPU costs as much."""
    found, n = numbers(given), 1000 * 100
    if found is None or len(found) != 2:
        return "the answer is two numbers: euros, and milliseconds of the GPU."
    euros, ms = found
    if not near(euros, n * seconds / 3600 * 0.05):
        return "the first number: scans times epochs, their seconds, and the price of an hour."
    gpu = n * ms / 1000 / 3600 * 3
    return "" if near(gpu, euros) else f"at {ms:g} ms a scan the GPU costs {gpu:.2g} euros."


def _chunk_edges(given: Any, about: tuple[Mapping[int, int], float]) -> str:
    """The edges of chunks with the shortest step, over a network and from a local disk."""
    found, (touched, ratio) = numbers(given), about
    if found is None or len(found) != 2 or not set(found) <= set(touched):
        return f"the answer is two of the edges {', '.join(map(str, touched))}: network, disk."
    for edge, wait, where in zip(found, (0.02, 1e-4), ("network", "disk"), strict=True):
        moved = {e: touched[e] * e**3 * 4 * ratio / 1e9 for e in touched}
        waits = {e: touched[e] * wait / 64 for e in touched}
        # One after the other, or at the same time: both are right.
        least = [min(touched, key=lambda e, f=f: f(moved[e], waits[e])) for f in (add, max)]
        if edge not in least:
            return f"{where}: another edge has a shorter step; count transfer and latency."
    return ""


def _decoded(given: Any, n_chunks: int) -> str:
    """Chunks that a second pass finds in caches of a quarter, a half and all of them."""
    found = numbers(given)
    if found is None or len(found) != 3:
        return "the answer is three numbers, one for each cache."
    for share, chunks in zip((0.25, 0.5, 1), found, strict=True):
        if chunks > share * n_chunks:
            return f"a cache of {share:.0%} cannot hold {chunks:.0f} of {n_chunks} chunks."
    if found[2] < n_chunks:
        return "a cache of all chunks answers for all of them: is it a little too small?"
    hint = "how many of the chunks that a half holds are read again before they are evicted?"
    return "" if found[1] <= 0.25 * n_chunks else hint


def _entries(given: Any, ranks: Sequence[int]) -> str:
    """How many entries more a step requests at twice the resolution, by rank."""
    found = numbers(given)
    if found is None or len(found) != len(ranks):
        return f"the answer is {len(ranks)} numbers, one for each rank."
    for rank, more in zip(ranks, found, strict=True):
        if more != 3 * 2 * rank**2:
            return f"rank {rank}: how many sites are new, and how many entries has each?"
    return ""


def _ratio(given: Any, scores: Sequence[float]) -> str:
    """The factor between two mean errors, from scores with the best single width."""
    factor, (better, worse) = number(given), scores
    if factor is None:
        return "the answer is one number, the factor."
    exact = math.exp(better - worse)
    if near(factor, 1 / exact):
        return "this is the factor of the smaller error; give that of the larger."
    return "" if near(factor, exact) else "which function of the error is the score?"


CHECKS: dict[str, Check] = {
    "ex-data-grid": _stretch,
    "ex-data-mlll": _likelihood,
    "ex-data-flip": _flip,
    "ex-data-metal": _robust,
    "ex-cpic-histogram": _by_histogram,
    "ex-cpic-center": _centered,
    "ex-brats-batch": _fold_error,
    "ex-brats-folds": _held_out,
    "ex-osic-ml": _ratio,
    "ex-osic-quantile": _minimizers,
    "ex-osic-percent": _leak,
    "ex-osic-rescale": _width,
    "ex-costs-batch": _saved,
    "ex-costs-price": _price,
    "ex-scale-double": _entries,
    "ex-scale-chunk": _chunk_edges,
    "ex-scale-lru": _decoded,
}
