r"""From what was measured of an array to the chooser to try.

The error to expect of a grid is measured. With `e` that of a grid of the budget and `q` of a
quarter of it, both from end to end, `t` the share of the squared error of the latter in the worst
tenth of the probes, and `n` the noise, that of coarse-to-fine is

    e exp(a_0 + a_1 t + a_2 log(q / e) + a_3 n / e),

and that of a cross a factor times what the best train of its rank would miss. The five numbers are
fitted to recorded errors, `book/results/choosers.json`: heads, photographs and sums of functions on
three axes. `book/results/make_advice.py` fits them, and judges them on parts that are left out
(`advice.json`). The bounds follow from the same record and from `rare.json`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

REFINED = (0.57, -1.21, 0.12, 0.06)
CROSSED = 1.09
MARGIN = 2.0  # a search that meets nothing of a small detail seems exact
ISOLATED = 0.5  # share of the energy in the brightest hundredth of the values


class Decision(NamedTuple):
    """The chooser to try, its options, the errors to expect, and why."""

    by: str
    options: dict[str, Any]
    expected: dict[str, float]
    reasons: tuple[str, ...]


def expected_errors(found: Mapping[str, float]) -> dict[str, float]:
    """Errors to expect by chooser, relative to the root mean square."""
    errors = {"grid": found["grid"], "grid, ends": found["ends"]}
    ends = max(found["ends"], 1e-12)
    gain = sum(a * x for a, x in zip(REFINED, refined_by(found), strict=True))
    errors["coarse-to-fine"] = ends * math.exp(gain)
    if found["rank"]:
        errors["cross-least-squares"] = CROSSED * found["tail"]
    return errors


def refined_by(found: Mapping[str, float]) -> tuple[float, float, float, float]:
    """On what the gain of coarse-to-fine over a grid depends: 1, t, log(q / e), n / e."""
    ends = max(found["ends"], 1e-12)
    return 1.0, found["top"], math.log(max(found["coarse"], 1e-12) / ends), found["noise"] / ends


def decide(found: Mapping[str, float]) -> Decision:
    """Choose by what was measured."""
    errors = expected_errors(found)
    # Cross last, and only if it promises much more.
    promised = {k: v * (MARGIN if k.startswith("cross") else 1) for k, v in errors.items()}
    name = min(promised, key=promised.__getitem__)
    by, _, phase = name.partition(", ")
    options = {"phase": phase} if phase else {}
    spread, unseen = found["spread"], 3 / found["n_probes"]
    reasons = [
        f"A detail that fills less than about {unseen:.1g} of the volume may have been missed by "
        f"all {found['n_probes']:.0f} probes."
    ]
    if spread < 1e-12:
        why = (
            "All probes have the same value: what differs is too rare for them. Coarser levels, "
            "which are means over all voxels, show it if it is bright enough; without levels, use "
            "'importance' with a map of where it may lie."
        )
        return Decision("pyramid", {}, errors, (why, *reasons))
    if found["peaks"] > ISOLATED:
        why = (
            f"{found['peaks']:.0%} of the energy lies in the brightest hundredth of the values, in "
            f"details of about {found['width']:.0f} voxels. "
        )
        if found["width"] < found["stride"]:
            why += (
                f"They are narrower than the stride of a grid, {found['stride']:.1f}: a grid and "
                "what refines it miss most of them. Without coarser levels, use 'importance' with a"
                " map of where they may lie."
            )
            return Decision("pyramid", {}, errors, (why, *reasons))
        why += f"The stride of a grid, {found['stride']:.1f}, finds them, and halving refines them."
        return Decision("coarse-to-fine", {}, errors, (why, *reasons))
    signal = math.sqrt(max(spread**2 - found["noise"] ** 2, 0.0))
    if errors[name] > signal:
        why = (
            f"The least error to expect of a picture, {errors[name]:.2g}, is above {signal:.2g}, "
            f"the spread without the noise of {found['noise']:.2g}: the mean is the better picture."
            " Random positions estimate it without bias."
        )
        return Decision("random", {}, errors, (why, *reasons))
    why = {
        "grid": "Interpolation is good everywhere: the errors of a coarse grid are not "
        f"concentrated (the worst tenth of the probes has {found['top']:.0%} of them).",
        "coarse-to-fine": "The errors of a coarse grid are concentrated: the worst tenth of the "
        f"probes has {found['top']:.0%} of them, so reading more there pays.",
        "cross-least-squares": f"The unfoldings are of low rank: the best train of rank "
        f"{found['rank']:.0f}, which the budget allows, would miss {found['tail']:.2g}.",
    }
    return Decision(by, options, errors, (why[by], *reasons))
