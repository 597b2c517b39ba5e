"""`python -m tests.bench`: print the tables, write `_build/bench.json` and `_build/peers.json`.

Parts are named: search, tolerance, choosers, gradients, features, spectral, pooling, volumes,
stores, training, patches; gpu, where there is one. Two run only when they are named: resolution,
steps on 256^3 to 8192^3, half an hour, and races, all libraries on all problems, hours.
"""

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from tqdm import tqdm

from tests.bench import harness, race
from tests.bench.cases import all_cases, all_parts
from tests.bench.cases_peers import peer_races, run_race
from tests.bench.training import HEADS, store_all

LONG = ("resolution",)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parts, on_gpu = all_parts(), torch.cuda.is_available()
    parser.add_argument(
        "--parts",
        nargs="+",
        default=[name for name in parts if name not in LONG and (name != "gpu" or on_gpu)],
        choices=[*parts, "races"],
        help="parts to run; default: all but resolution and races",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="of these, names that hold one of the words"
    )
    parser.add_argument(
        "--repeats", type=int, default=harness.REPEATS, help="alternating runs, at least 1"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=harness.SECONDS,
        help="processor time after which a case is not run once more",
    )
    parser.add_argument(
        "--memory", action="store_true", help="of all cases, not of those with a bound"
    )
    parser.add_argument("--out", type=Path, default=harness.ROOT / "_build" / "bench.json")
    parser.add_argument(
        "--peers", type=Path, default=harness.ROOT / "_build" / "peers.json", help="of the races"
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no case after so many"
    )
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "WHO"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if "gpu" in given.parts and not on_gpu:
        parser.error("the part gpu needs a CUDA device, and torch finds none on this machine.")
    torch.set_num_threads(1)
    if given.peak:
        case, who = all_cases()[given.peak[0]], given.peak[1]
        run = case.peers[who] if who else case.ours
        if case.peak == "whole":
            print(harness.peak_whole(run))
            return
        run(0, check=False)  # what a first call loads and keeps is not the price of a run
        print(harness.peak_growth(run))
        return

    def chosen(part: str, names: Iterable[str]) -> list[str]:
        words = given.only or [""]
        return [n for n in names if part in given.parts and any(word in n for word in words)]

    cases = {p: [found[n] for n in chosen(p, found)] for p, found in parts.items()}
    races = {one.name: one for one in peer_races()}
    races = [races[name] for name in chosen("races", races)]
    if not any(cases.values()) and not races:
        parser.error(f"no name in {', '.join(given.parts)} holds one of {given.only}.")
    rows, late = [], time.monotonic() + 60 * given.minutes
    if cases.get("gpu") or cases.get("training"):
        store_all((256,) * 3, HEADS)
    for part, some in cases.items():
        begin = time.monotonic()
        for case in tqdm(some, disable=None, unit="case", desc=part):
            if time.monotonic() > late:
                print(f"no time was left for {case.name}")
                continue
            rows += harness.measure(case, given.repeats, given.seconds)
            rows += harness.memory(case, always=given.memory)
            # Kept after each, so that a run that is interrupted leaves what it has.
            harness.write(rows, given.out)
        if some:
            print(f"{part}: {len(some)} cases in {(time.monotonic() - begin) / 60:.1f} minutes")
    if races:
        rows += run_races(races, given.peers)
    harness.write(rows, given.out)
    print(harness.table(rows))
    missed = sorted({f"{row.name} ({row.unit})" for row in rows if row.met is False})
    print(f"\n{len(rows)} rows in {given.out}")
    print("goals missed: " + ("; ".join(missed) or "none"))


def run_races(races: list[race.Race], path: Path) -> list[harness.Row]:
    """Run the races, keep their record in a file of its own, and return their readings as rows."""
    begin, runs = time.monotonic(), []
    for k, one in enumerate(tqdm(races, disable=None, unit="race")):
        runs += run_race(one)
        # Kept after each, so that a run that is interrupted leaves what it has.
        race.write(race.record(races[: k + 1], runs, wall=time.monotonic() - begin), path)
    for run in runs:
        if run.reason is not None:
            print(f"{run.race}, {run.library} {run.setting}: {run.reason}")
    return [row for one in races for row in race.rows(one, runs)]


if __name__ == "__main__":
    main()
