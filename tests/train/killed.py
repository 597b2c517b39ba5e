"""Run fits that kill themselves, and their resumed ones: `python -m tests.train.killed FOLDER`.

Every fit is a forked process, so that the libraries are loaded once.
"""

import os
import signal
import sys
import traceback
from pathlib import Path

import torch

from cpic.nn import CPIC
from cpic.train import fit_fold
from cpic.train.loop import _checkpoints
from tests.train.tiny import Means, make_cpic, make_data, make_task


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_call(call):
    """In the n-th call of the model: 2 of an epoch train, 1 validates."""
    for kind in (Means, CPIC):

        def forward(self, *args, old=kind.forward, **options):
            out = old(self, *args, **options)
            forward.calls += 1
            if forward.calls == call:
                die()
            return out

        forward.calls = 0
        kind.forward = forward


def die_in_save(save):
    """In the middle of the n-th file that torch writes."""

    def half(state, file, old=torch.save):
        half.calls += 1
        if half.calls == save:
            file.write(b"half a checkpoint")
            file.flush()
            die()
        old(state, file)

    half.calls = 0
    _checkpoints.torch.save = half


def fit(folder, kind, *, resume):
    torch.set_num_threads(1)
    model = make_cpic() if kind == "cpic" else Means(1, n_tabular=1)
    tabular = None if kind == "cpic" else lambda rows: torch.tensor(rows[["weeks"]].to_numpy())
    # Two training batches an epoch and one of validation.
    sizes = {"n": 11, "batch_size": 4, "validation": 2}
    if kind == "means":
        sizes = {"n": 11, "batch_size": 12, "validation": 3, "visits": 3}
    data = make_data(**sizes, min_patients=3, tabular=tabular)
    options = {"num_epochs": 2, "save_every": 1, "resume": resume}
    fit_fold(make_task(model), data, folder=folder, **options)


def forked(function, *args, **options):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        function(*args, **options)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def killed(how, n, *args):
    how(n)
    fit(*args, resume=False)


# In the second step, in the state of the end of the first epoch, and in the last validation.
CASES = [("cpic", die_in_call, 2), ("cpic", die_in_save, 3), ("cpic", die_in_call, 6)]
# Also before anything is saved, and in the first validation.
CASES += [("means", die_in_call, n) for n in (1, 3)]


def main(root):
    root = Path(root)
    for kind in ("cpic", "means"):
        assert forked(fit, root / kind, kind, resume=False) == 0
    for kind, how, n in CASES:
        folder = root / f"{kind}-{how.__name__}-{n}"
        assert forked(killed, how, n, folder, kind) == -signal.SIGKILL
        assert forked(fit, folder, kind, resume=True) == 0


if __name__ == "__main__":
    main(sys.argv[1])
