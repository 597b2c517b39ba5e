"""Train the networks of chapter 14, and write `spectral.json` beside this file.

    python book/results/make_spectral.py             # what is missing; all of it takes two hours
    python book/results/make_spectral.py gan-sn      # rows whose name begins so, once more

A row that is there is not repeated unless it is named. One thread.
"""

import base64
import json
import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from _rows import asked_rows, rows_to_make

from cpic import train
from cpic._files import write_json
from cpic.nn import spectral
from cpic.nn.generative import to_pixels
from cpic.train.results._results import provenance
from cpic.train.tasks import _adversarial, _classifier

OUT = Path(__file__).parent / "spectral.json"
SEEDS = (0, 1, 2)
SIZE = 16
GAN: dict[str, Any] = {
    "dataset": "digits",
    "size": SIZE,
    "g_width": 16,
    "d_width": 8,
    "batch_size": 32,
    "num_steps": 150,
    "d_steps": 2,
    "g_lr": 1e-3,
    "d_lr": 1e-3,
    "ema": 0.98,
    "evaluate_every": 75,
    "spectra_every": 15,
    "sheets_every": 10**6,
    "log_every": 10**6,
    "num_samples": 500,
    "batch_size_inference": 250,
    "metrics": "features",
    "reference": "test",
    "onnx": False,
    "num_workers": 0,
}
METHODS: dict[str, dict[str, Any]] = {
    "sn": {"d_layers": "sn"},
    "sr": {"d_layers": "sr", "d_layer_options": {"every": 2}},
    "svdpC": {"d_layers": "svdp", "d_spectrum": "fixed"},
    "sttpC": {"d_layers": "sttp", "d_spectrum": "fixed"},
}
CLASSIFIER: dict[str, Any] = {
    "dataset": "digits",
    "size": SIZE,
    "augment": "shift",
    "depth": 10,
    "widen": 2,
    "batch_size": 32,
    "num_steps": 1200,
    "evaluate_every": 1200,
    "spectra_every": 10**6,
    "log_every": 10**6,
    "batch_size_inference": 250,
    "num_workers": 0,
}
RANKS = {"svdp": (2, 4, 8, 16, 32), "sttp": (4, 8, 16, 24, 32)}
# Channels of the first stage: the trivial way to a network of few numbers.
NARROW = (8, 10, 12, 16)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    **{
        f"{kind}-{rank:02}": {"layers": kind, "rank": rank, "layer_options": {"gain": "keep"}}
        for kind, ranks in RANKS.items()
        for rank in ranks
    },
    **{f"narrow-{channels:02}": {"widen": channels / 16} for channels in NARROW},
}
WHAT = (
    "Recorded runs of chapter 14: 4 000 training and 1 000 test digits of MNIST at 16 x 16. gan: "
    "generator of width 16, Adam (0, 0.9) 1e-3 falling linearly to 0 over 150 generator updates of "
    "32 images, two discriminator updates each, average of the generator with momentum 0.98; "
    "a discriminator of width 8, "
    "with spectral normalization (sn), spectral compensation once a step (sr), or frames with a "
    "spectrum fixed to ones (svdpC, sttpC; rank 64). distance: Frechet distance between features "
    "of 500 generated digits and of the 1 000 test digits, by a small classifier trained on the "
    "training digits; start: of the untrained generator; between_real: between 500 training digits "
    "and the test digits; curve: distance by update; stable_rank: mean over the layers of the "
    "discriminator, by update; spectra: singular values of its layers over the largest, by update "
    "(seed 0); sheet: 16 generated digits of fixed latent vectors (seed 0). classifier: WideResNet "
    "of depth 10, widened twice, SGD 0.1 falling linearly to 0 over 1 200 steps of 32 digits, "
    "shifts by at most 2 pixels; percent: of the numbers of the plain network, all included; "
    "weights: of those of the parametrized layers; learned gain; narrow: plain networks with so "
    "many channels in the first stage. Three seeds of weights, order and noise."
)
# Seed by seed, so that what is there is complete for some seeds.
NAMES = [
    name
    for seed in SEEDS
    for name in [f"gan-{m}-{seed}" for m in METHODS] + [f"classifier-{k}-{seed}" for k in KINDS]
]
_log = logging.getLogger(__name__)


def run_gan(name: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """One pair of networks: distances, stable ranks and spectra over time, a sheet of digits."""
    _, method, seed = name.split("-")
    kept: list[dict[str, Any]] = []

    def keep(self: Any, module: Any, spectra: Any, *, done: int) -> None:
        if done % self.spectra_every == 0:
            kept.append({"step": done, **_spectra(spectra["discriminator"]())})

    options = {**GAN, **METHODS[method], **changes}
    pairs = []

    def make(*args: Any, made: Any = _adversarial.make_pair) -> Any:
        pairs.append(made(*args))
        kept.append({"step": 0, **_spectra(spectral.spectra(pairs[0][0].discriminator))})
        return pairs[0]

    with (
        mock.patch.object(_adversarial.Watch, "draw", keep),
        mock.patch.object(_adversarial, "make_pair", make),
    ):
        result = train.gan(
            results_folder=str(folder), experiment_name=name, seed=int(seed), **options
        )[0]
    (networks, facts), summary = pairs[0], json.loads((folder / name / "summary.json").read_text())
    found: dict[str, Any] = {
        "distance": round(result.metrics["distance"], 3),
        "start": round(result.metrics["distance_start"], 3),
        "curve": _curve(folder / name),
        "stable_rank": [[one["step"], round(one["stable_rank"], 3)] for one in kept],
        "percent": round(facts["compression"]["discriminator"]["percent"], 2),
        "features_accuracy": summary["features_accuracy"],
    }
    if int(seed) == 0:
        found["spectra"] = [{"step": one["step"], "layers": one["layers"]} for one in kept]
        draw = torch.Generator().manual_seed(1)
        latent = torch.randn(16, 128, generator=draw)
        with torch.no_grad():
            pixels = to_pixels(networks.evaluated.eval()(latent))
        found["sheet"] = base64.b64encode(pixels.numpy().tobytes()).decode()
    return found


def _spectra(values: dict[str, torch.Tensor]) -> dict[str, Any]:
    ranks = torch.stack([spectral.stable_rank(one) for one in values.values()])
    relative = {name: (one / one.max()).tolist() for name, one in values.items()}
    rounded = {name: [round(x, 3) for x in one] for name, one in relative.items()}
    return {"stable_rank": float(ranks.mean()), "layers": rounded}


def _curve(folder: Path) -> list[list[float]]:
    import csv

    with (folder / "fold_0" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [[int(row["step"]), round(float(row["val_distance"]), 3)] for row in rows]


def between_real(folder: Path) -> float:
    """The distance between training and test digits, as many as are generated."""
    pair = _classifier.load_pair(train.gan.command.groups["data"], SIZE)  # type: ignore[attr-defined]
    judge = _adversarial.train_judge(
        pair, pair[1].pixels, folder=folder / "features-0", seed=0, resume=True
    )
    order = torch.randperm(len(pair[0]), generator=torch.Generator().manual_seed(0))[:500]
    kept = [judge.read(part) for part in pair[0].read(order).split(250)]
    return round(judge.compare(kept)["distance"], 3)


def run_classifier(name: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """One classifier: its accuracy and its numbers."""
    kind, seed = name.removeprefix("classifier-").rsplit("-", 1)
    options = {**CLASSIFIER, **KINDS[kind], **changes}
    result = train.imgcls(
        results_folder=str(folder), experiment_name=name, seed=int(seed), **options
    )[0]
    facts = json.loads((folder / name / "summary.json").read_text())["compression"]
    found = {"accuracy": result.metrics["accuracy"], "numbers": facts["free"] + facts["rest"]}
    if kind.startswith("narrow"):  # nothing is compressed; the chapter has the plain network
        return found
    percent = {"percent": facts["percent"], "weights": facts["weights_percent"]}
    return found | {unit: round(value, 2) for unit, value in percent.items()}


def run(name: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """One row."""
    if name.startswith("classifier"):
        return run_classifier(name, folder, **changes)
    seed = name.rsplit("-", 1)[1]
    shared, own = folder / f"features-{seed}", folder / name / "features"
    # Runs of one seed share the classifier that judges them.
    if shared.exists():
        shutil.copytree(shared, own)
    found = run_gan(name, folder, **changes)
    if not shared.exists():
        shutil.copytree(own, shared)
    return found


def main() -> None:
    """Make the rows that are missing, or asked for."""
    asked = asked_rows(__doc__, "rows", NAMES)
    found: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"rows": {}}
    rows = found["rows"]
    with tempfile.TemporaryDirectory() as work:
        for name in rows_to_make(asked, NAMES, lambda name: name not in rows):
            begin = time.perf_counter()
            rows[name] = run(name, Path(work))
            _log.info("%s: %.0f s", name, time.perf_counter() - begin)
            if name.startswith("gan") and "between_real" not in found:
                found["between_real"] = between_real(Path(work))
            ordered = {one: rows[one] for one in NAMES if one in rows}
            steps = {"gan": GAN["num_steps"], "classifier": CLASSIFIER["num_steps"]}
            kept = {"what": WHAT, "steps": steps, "between_real": found.get("between_real")}
            kept["rows"] = ordered
            write_json(OUT, {**kept, "provenance": provenance()})


if __name__ == "__main__":
    main()
