"""How a square root and its gradient are computed."""

from dataclasses import dataclass, field
from typing import Any

from cpic.linalg._gaps import Gap, gap_function
from cpic.linalg._inputs import check_choice, check_least

METHODS = ("eigh", "newton_schulz", "pade", "taylor", "minimax", "auto")
SCALES = ("frobenius", "bound")
# Published numbers of steps and degrees.
_STEPS = {"newton": 10, "iterative": 8}
DEGREES = {"pade": 5, "taylor": 10}


@dataclass(frozen=True)
class How:
    """A method and a gradient with all their options."""

    method: str
    gradient: str
    steps: int | None
    degree: int
    scale: str
    check: bool
    gap: Gap | None = field(default=None)


def chosen(
    method: str,
    gradient: str | None,
    steps: int | None,
    degree: int | None,
    scale: str,
    check: bool,
    options: dict[str, Any],
) -> How:
    """The choice, checked and completed."""
    check_choice("sqrtm", "method", method, METHODS, '"eigh" is exact')
    check_choice("sqrtm", "scale", scale, SCALES, '"bound" is more accurate')
    own = {"eigh": "lyapunov", "newton_schulz": "newton"}.get(method, "iterative")
    if method == "auto":
        own = "lyapunov"
    whole = {
        name: number if number is None or type(number) is int else 0
        for name, number in {"steps": steps, "degree": degree}.items()
    }
    check_least("sqrtm", "omit it for the published number", least=1, **whole)
    if degree is not None and method == "eigh":  # of the gradient
        options, degree = {**options, "degree": degree}, None
    if degree is not None and (method not in DEGREES or degree > 200):
        raise ValueError(
            f'sqrtm needs `degree` of at most 200 for method "pade" or "taylor", got {degree} for '
            f'"{method}"; omit it.'
        )
    gradient, gap = gradient or own, None
    allowed = {"newton_schulz": ("newton",), "auto": ("lyapunov",)}
    if method != "eigh":
        advice = 'pass method="eigh" for the others'
        names = allowed.get(method, ("iterative",))
        check_choice(f'sqrtm with method="{method}"', "gradient", gradient, names, advice)
    if gradient not in ("lyapunov", "newton", "iterative"):
        if steps is not None:
            options, steps = {**options, "steps": steps}, None
        gap = gap_function("sqrtm", gradient, options)
    elif options:
        raise TypeError(
            f'sqrtm takes no options with gradient "{gradient}", got {sorted(options)}; '
            "they belong to the methods of `inverse_gap`."
        )
    if steps is None and method != "minimax":
        steps = _STEPS.get(gradient)
    return How(method, gradient, steps, degree or DEGREES.get(method, 0), scale, check, gap)
