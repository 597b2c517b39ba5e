"""`python -m tests.bench`: print the table and write `_build/bench.json`."""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from tests.bench import harness
from tests.bench.cases import all_cases


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="*",
        default=[""],
        metavar="WORD",
        help="cases whose name holds one of these",
    )
    parser.add_argument(
        "--repeats", type=int, default=harness.REPEATS, help="alternating runs, at least 1"
    )
    parser.add_argument("--out", type=Path, default=harness.ROOT / "_build" / "bench.json")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "WHO"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = all_cases()
    if given.peak:
        case, who = cases[given.peak[0]], given.peak[1]
        run = case.peers[who] if who else case.ours
        run(0, check=False)  # what a first call loads and keeps is not the price of a run
        print(harness.peak_growth(run))
        return
    chosen = [case for name, case in cases.items() if any(word in name for word in given.only)]
    if not chosen:
        parser.error(f"no case holds {given.only}; the names are: " + "; ".join(cases))
    rows = []
    for case in tqdm(chosen, disable=None, unit="case"):
        rows += harness.measure(case, given.repeats)
        rows += harness.memory(case)
    print(harness.table(rows))
    harness.write(rows, given.out)
    missed = sorted({f"{row.name} ({row.unit})" for row in rows if row.met is False})
    print(f"\n{len(rows)} rows in {given.out}")
    print("goals missed: " + ("; ".join(missed) or "none"))


if __name__ == "__main__":
    main()
