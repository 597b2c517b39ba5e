"""Presets of the published experiments with spectral tensor trains: tables 1 to 3, figures 6 and 7.

References: {cite}`obukhov2021spectral`.
"""

from collections.abc import Iterator
from typing import Any

_FOLDER = "aistats21"
_SETS = {"c10u": ("cifar10", 32, 32), "s10u": ("stl10", 48, 64)}  # with the narrow width
_INIT = {"init": "qr_eye_randn", "noise": 1e-4, "seed": 2020}
_METHODS: dict[str, dict[str, Any]] = {
    "sn": {"layers": "sn"},
    "sr": {"layers": "sr", "layer_options": {"every": 5, "normalize": True}},
    **{
        f"{kind}{letter}": {
            "layers": kind,
            "rank": 64,
            "spectrum": "fixed" if letter == "C" else "learned",
            "penalty": "d_optimal" if letter == "R" else "none",
            "layer_options": _INIT,
        }
        for kind in ("svdp", "sttp")
        for letter in "CLR"
    },
}
_RANKS = {
    "svdp": (4, 8, 16, 24, 32, 48, 64),
    "sttp": (16, 24, 32, 48, 64, 96, 128),
}
_CLASSIFIER_RANKS = {"svdp": (4, 8, 16, 32, 64, 128), "sttp": (8, 16, 32, 64, 128, 256)}
_GAN: dict[str, Any] = {
    "command": "gan",
    "seed": 2020,
    "fidelity": {"batch_size": 32, "isc": True, "fid": True, "kid": True, "ppl": False},
}
_CLASSIFIER: dict[str, Any] = {
    "command": "imgcls",
    "seed": 2020,
    "dataset": "cifar10",
    "batch_size": 128,
}


def presets() -> dict[str, dict[str, Any]]:
    """Options by the name of a preset, which is its published folder and file.

    The last two, of table 3, have no published file.

    Example:
        >>> found = presets()
        >>> len(found), found["aistats21/figure7_classification/f7_c10_wrn_sttpR_r016"]["rank"]
        (53, 16)
    """
    return {f"{_FOLDER}/{name}": options for name, options in _all()}


def _all() -> Iterator[tuple[str, dict[str, Any]]]:
    for key, (dataset, size, width) in _SETS.items():
        base = {**_GAN, "dataset": dataset, "size": size}
        for method in ("sn", "sr", "svdpC", "sttpC"):
            name = f"table1_gan_reduced_discriminator/t1_{key}_sngan_{method}"
            yield name, {**base, **_of("d", method), "d_width": width}
        for method in _METHODS:
            yield (
                f"table2_gan_full_discriminator/t2_{key}_sngan_{method}",
                {
                    **base,
                    **_of("d", method),
                },
            )
    base = {**_GAN, "dataset": "cifar10", "size": 32}
    for kind, ranks in _RANKS.items():
        for rank in ranks:
            weight = 0.75 if (kind, rank) == ("sttp", 64) else 1.0
            own = {"g_rank": rank, "g_penalty_weight": weight, "g_ignored": ["noise_to_conv"]}
            name = f"table3_figure6_gan_rank/t3_c10u_sngan_{kind}R_r{rank:03}"
            yield name, {**base, **_of("d", "svdpR"), **_of("g", f"{kind}R"), **own}
    yield "figure7_classification/f7_c10_wrn_baseline", _CLASSIFIER
    for kind, ranks in _CLASSIFIER_RANKS.items():
        for rank in ranks:
            name = f"figure7_classification/f7_c10_wrn_{kind}R_r{rank:03}"
            yield name, {**_CLASSIFIER, **_METHODS[f"{kind}R"], "rank": rank}
    for kind in ("svdp", "sttp"):
        name = f"table3_figure6_gan_rank/t3_c10u_sngan_discriminator_{kind}R_r032"
        yield name, {**base, **_of("d", f"{kind}R"), "d_rank": 32}


def _of(side: str, method: str) -> dict[str, Any]:
    return {f"{side}_{name}": value for name, value in _METHODS[method].items()}
