"""How often `cpic.choose.advise` is right on the recorded arrays. Writes `advice.json` beside this.

    python book/results/make_advice.py   # three minutes

Measures the subjects and the functions of three axes of `choosers.json` as `advise` does, fits the
numbers of its rules, and judges them on each part with numbers fitted to the others. One thread.
"""

import json
import logging
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import make_choosers
import make_rare
import torch
from _rows import asked_rows

from cpic.choose import _measure, _rules
from cpic.choose._points import Draw
from cpic.cohorts._cache import write_json
from cpic.train.results._results import provenance
from cpic.tt import dense_entries

OUT = Path(__file__).parent / "advice.json"
WHAT = (
    "How often the chooser that cpic.choose.advise names is within 10 % of the least recorded "
    "error of all choosers (choosers.json; oracles left out), for the three arrays of each row of "
    "subjects and functions of three axes, with 512 probes and three seeds of the generator. "
    "left_out: that share for each seed; the numbers of the rules are fitted without the part that "
    "is judged, to all seeds. refined and crossed are fitted to all. always: the same share for "
    "one chooser whatever the array; one that was refused for its budget counts as wrong. worse: "
    "how many recorded errors are above 1.5 times the least one. parts, advice: of all seeds; "
    "parts: right and all. measured_error: quartiles of the measured error of a grid over the "
    "recorded one. rare: for the phases of rare.json, 5 volumes each: what is advised at 4096 "
    "reads, and recorded errors of the mean by what is advised most often (pyramid: with levels)"
    ", and the least one."
)
PARTS = [
    *make_choosers.SUBJECTS,
    *(f"3-{kind}" for kind in make_choosers.KINDS),
]
ALWAYS = ("grid", "best grid", "coarse-to-fine", "cross-least-squares", "random", "importance")
RECORDED = {"grid, ends": "best grid"}
SEEDS = (0, 1, 2)
LEAST = 1e-12  # all errors below are rounding


class Case(NamedTuple):
    """One array at one budget: its part, what was measured, and the recorded errors."""

    part: str
    found: dict[str, float]
    errors: dict[str, float]


def cases(seed: int) -> Iterator[Case]:
    """All arrays of the record that `advise` could be asked about."""
    record = json.loads(make_choosers.OUT.read_text())["parts"]
    for part in PARTS:
        for row in record[part]["rows"]:
            if part in make_choosers.SUBJECTS:
                arrays = make_choosers.subject(part)
                entries, shape = dense_entries(arrays), tuple(arrays.shape[1:])
                count = int(row["share"] * arrays[0].numel())
            else:
                entries = make_choosers.Functions(
                    3, part[2:], row["widths"], row["detail"], row["noise"]
                )
                shape, count = entries.shape, row["count"]
            draw = Draw(3, torch.Generator().manual_seed(seed), torch.device("cpu"))
            found = _measure.measure(
                lambda at, e=entries: e(at).double(), shape, count, n_probes=512, draw=draw
            )
            for k in range(3):
                errors = {n: e[k] for n, e in row["errors"].items() if "svd" not in n}
                yield Case(part, _measure.numbers_of(found, k), errors)
        logging.info("seed %d: %s", seed, part)


def fit(given: Sequence[Case]) -> tuple[tuple[float, ...], float]:
    """The numbers of both rules: least squares of logarithms, and a median."""
    name = "coarse-to-fine"
    # Errors below one hundredth belong to functions that a line fits, of which few are recorded.
    kept = [case for case in given if case.errors[name] > 0.01]
    by = torch.tensor([_rules.refined_by(case.found) for case in kept], dtype=torch.float64)
    gain = [math.log(case.errors[name] / case.found["ends"]) for case in kept]
    refined = torch.linalg.lstsq(by, torch.tensor(gain, dtype=torch.float64)[:, None]).solution
    name = "cross-least-squares"
    ratios = [
        case.errors[name] / case.found["tail"]
        for case in given
        if case.errors.get(name, 0) > 1e-6 and case.found["rank"] and case.found["tail"] > 1e-6
    ]
    return tuple(refined[:, 0].tolist()), statistics.median(ratios)


def judged(given: Sequence[Case]) -> list[tuple[str, str, float]]:
    """Part, advice, and its recorded error over the least one."""
    found = []
    for case in given:
        decision = _rules.decide(case.found)
        name = ", ".join([decision.by, *decision.options.values()])
        name = RECORDED.get(name, name)
        error = case.errors.get(name, math.inf)
        ratio = max(error, LEAST) / max(min(case.errors.values()), LEAST)
        found.append((case.part, name, ratio))
    return found


def share(right: Sequence[bool]) -> float:
    """Rounded share of what is true."""
    return round(sum(right) / len(right), 3)


def is_right(case: Case, name: str) -> bool:
    """Whether the error of a chooser is within 10 % of the least."""
    least = max(min(case.errors.values()), LEAST)
    return max(case.errors.get(name, math.inf), LEAST) <= 1.1 * least


def rare() -> dict[str, Any]:
    """What is advised on rare blobs, beside the recorded errors of the mean."""
    record, ground = json.loads(make_rare.OUT.read_text())["phases"], make_rare.texture()
    rows = {}
    for phase in make_rare.PHASES:
        part, tails, kind = phase.rsplit("-", 2)
        blobs = make_rare.Blobs(float(part), tails, ground if kind == "textured" else None, 5)
        draw = Draw(5, torch.Generator().manual_seed(0), torch.device("cpu"))
        found = _measure.measure(blobs, blobs.shape, make_rare.COUNT, n_probes=512, draw=draw)
        advice = Counter(_rules.decide(_measure.numbers_of(found, k)).by for k in range(5))
        errors = {n: row["rms"] for n, row in record[phase]["rows"].items()}
        missed = {n: row["missed"] for n, row in record[phase]["rows"].items()}
        by = advice.most_common(1)[0][0]
        least = min(errors, key=errors.__getitem__)
        rows[phase] = {
            "advice": dict(advice),
            "error": errors[by],
            "missed": missed[by],
            "least": [least, errors[least], missed[least]],
        }
        logging.info("%s %s", phase, rows[phase])
    return rows


def main() -> None:
    """Measure, fit, judge and write."""
    asked_rows(__doc__, "nothing", ())
    by_seed = [list(cases(seed)) for seed in SEEDS]
    every = [case for given in by_seed for case in given]
    found = {seed: [] for seed in SEEDS}
    for part in PARTS:
        _rules.REFINED, _rules.CROSSED = fit([case for case in every if case.part != part])
        for seed, given in zip(SEEDS, by_seed, strict=True):
            found[seed] += judged([case for case in given if case.part == part])
    refined, crossed = fit(every)
    _rules.REFINED = tuple(round(x, 2) for x in refined)
    _rules.CROSSED = round(crossed, 2)
    rows = [row for given in found.values() for row in given]
    ratios = [case.found["grid"] / case.errors["grid"] for case in every]
    record: dict[str, Any] = {
        "what": WHAT,
        "refined": _rules.REFINED,
        "crossed": _rules.CROSSED,
        "cases": len(by_seed[0]),
        "left_out": [share([ratio <= 1.1 for _, _, ratio in found[seed]]) for seed in SEEDS],
        "worse": [sum(ratio > 1.5 for _, _, ratio in found[seed]) for seed in SEEDS],
        "always": {name: share([is_right(case, name) for case in by_seed[0]]) for name in ALWAYS},
        "parts": {
            part: [sum(r <= 1.1 for p, _, r in rows if p == part), sum(p == part for p, *_ in rows)]
            for part in PARTS
        },
        "advice": dict(Counter(name for _, name, _ in rows)),
        "measured_error": [round(x, 3) for x in statistics.quantiles(ratios, n=4)],
        "rare": rare(),
        "provenance": provenance(),
    }
    write_json(OUT, record)
    for part, name, ratio in sorted(rows, key=lambda row: -row[2])[:15]:
        logging.info("%s %s %.3g", part, name, ratio)
    logging.info("%s", json.dumps({k: v for k, v in record.items() if k != "rare"}, indent=1))


if __name__ == "__main__":
    main()
