"""What a training step starts, and what it was before it was made lean.

Operations are those that PyTorch dispatches, views and copies included; reads on the host wait for
a number (`tests.counting`). The optimizer reads its own counters of steps besides, which lie on the
CPU wherever the parameters do: nothing waits for these.
"""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.bench.harness import ROOT
from tests.bench.training import Setting, Training
from tests.counting import Dispatched

# The last commit with small operations by the volume and the site.
BEFORE = "8c004ad"

LARGER: dict[str, Callable[[Setting], Setting]] = {
    "twice the batch": lambda setting: replace(setting, batch=2 * setting.batch),
    "4 times the contrasts": lambda setting: replace(setting, contrasts=4 * setting.contrasts),
    "64 times the chunks": lambda setting: replace(setting, edge=min(setting.shape) // 4),
}

STEPS = """
import json, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import cpic
from tests.bench import training
assert Path(cpic.__file__).parents[1] == Path.cwd(), cpic.__file__
training.ROOT = Path(sys.argv[1])
setting, n, seed = json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
setting["shape"] = tuple(setting["shape"])
made, seconds = training.Training(training.Setting(**setting), seed=seed), []
for _ in range(n):
    start = time.process_time()
    made.step()
    seconds.append(time.process_time() - start)
print(json.dumps(seconds))
"""


def counted(setting: Setting, *, seed: int = 0) -> dict[str, float]:
    """Operations and reads of a warm step, the most of both directions of a half-sweep.

    Exchanges of maxvol are left out of `site operations`: their number is up to the tensor.
    """
    training = Training(replace(setting, foreach=True), seed=seed)
    steps = [_counted(training) for _ in range(2)]
    return {unit: max(step[unit] for step in steps) for unit in steps[0]}


def _counted(training: Training) -> dict[str, float]:
    with Dispatched() as learned:
        training.gradient()
    with Dispatched() as updated:
        training.optimizer.step()
    operations = learned.operations + updated.operations
    exchanges = learned.names.get("aten::baddbmm_", 0)
    return {
        "operations": operations,
        "host reads": learned.reads,
        "site operations": operations - exchanges,
    }


def growth(
    setting: Setting, names: Iterable[str] = tuple(LARGER), *, seed: int = 0
) -> dict[str, float]:
    """How many times as many operations and reads a larger step has, exchanges left out."""
    few, found = counted(setting, seed=seed), {}
    for name in names:
        many = counted(LARGER[name](setting), seed=seed)
        found[name] = max(many[unit] / few[unit] for unit in ("site operations", "host reads"))
    return found


def seconds_of_steps(
    tree: Path, setting: Setting, *, n: int, seed: int, fields: tuple[str, ...]
) -> list[float]:
    """Processor seconds of each of `n` warm steps by the code in `tree`, in a process of its own.

    The volumes are those of this tree. `fields` of the setting are passed on.
    """
    given: Mapping[str, Any] = {name: asdict(setting)[name] for name in fields}
    command = [sys.executable, "-c", STEPS, str(ROOT), json.dumps(given), str(n), str(seed)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the steps of {tree} failed: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def has_history(commit: str = BEFORE, root: Path = ROOT) -> bool:
    """Whether a commit is at hand: neither a shallow clone nor a source distribution has it."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True
        )
    except FileNotFoundError:  # no git
        return False
    return asked.returncode == 0


def tree_of(commit: str = BEFORE, root: Path = ROOT) -> Path:
    """The package and its bench as they were at a commit, unpacked once."""
    tree = root / "_build" / f"bench-{commit}"
    if not tree.exists():
        archive = ["git", "-C", str(root), "archive", commit, "cpic", "tests"]
        packed = subprocess.run(archive, capture_output=True, check=True).stdout
        part = tree.with_suffix(".part")
        with tarfile.open(fileobj=io.BytesIO(packed)) as found:
            found.extractall(part, filter="data")
        part.rename(tree)
    return tree
