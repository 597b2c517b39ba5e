"""`python -m tests.bench`: print the tables, write `_build/bench.json` and `_build/peers.json`."""

import argparse
import time
from pathlib import Path

import torch
from tqdm import tqdm

from tests.bench import harness, race
from tests.bench.cases import all_cases
from tests.bench.cases_peers import peer_races, run_race


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="*",
        default=[""],
        metavar="WORD",
        help="cases and races whose name holds one of these; races begin with 'race: '",
    )
    parser.add_argument(
        "--repeats", type=int, default=harness.REPEATS, help="alternating runs, at least 1"
    )
    parser.add_argument("--out", type=Path, default=harness.ROOT / "_build" / "bench.json")
    parser.add_argument(
        "--peers", type=Path, default=harness.ROOT / "_build" / "peers.json", help="of the races"
    )
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "WHO"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = all_cases()
    if given.peak:
        case, who = cases[given.peak[0]], given.peak[1]
        run = case.peers[who] if who else case.ours
        if case.peak == "whole":
            print(harness.peak_whole(run))
            return
        run(0, check=False)  # what a first call loads and keeps is not the price of a run
        print(harness.peak_growth(run))
        return

    def asked_for(name: str) -> bool:
        return any(word in name for word in given.only)

    chosen = [case for name, case in cases.items() if asked_for(name)]
    races = [one for one in peer_races() if asked_for(f"race: {one.name}")]
    if not chosen and not races:
        names = [*cases, *(f"race: {one.name}" for one in peer_races())]
        parser.error(f"no case holds {given.only}; the names are: " + "; ".join(names))
    rows = []
    for case in tqdm(chosen, disable=None, unit="case"):
        rows += harness.measure(case, given.repeats)
        rows += harness.memory(case)
    if races:
        rows += run_races(races, given.peers)
    print(harness.table(rows))
    harness.write(rows, given.out)
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
