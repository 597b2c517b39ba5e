"""Failed steps: counted, logged with their cause, undone in the model, and limited in number."""

import copy
import logging
from collections.abc import Callable, Sequence

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from cpic._errors import CohortError
from cpic.train.loop._distributed import anywhere

# Errors that a single batch can cause: non-finite numbers, a rank-deficient matrix, an unreadable
# scan. Any other error is a fault of the program or the machine, and ends the run at once.
_FAULTS = (ValueError, ArithmeticError, LinAlgError, OSError)
_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)

_log = logging.getLogger(__name__)


class Faults:
    """Count the failed steps of a run.

    Args:
        most: Number of steps that may fail; one more ends the run.
    """

    def __init__(self, most: int = 3):
        self.most, self.count = most, 0
        self.last: Exception | None = None

    def attempt(
        self, stages: Sequence[Callable[[], None]], device: torch.device
    ) -> Exception | None:
        """Run the stages of a step, on all ranks or none, until one fails; return the cause.

        Raises:
            MemoryError: If there is not enough memory; the message has a remedy.
        """
        for stage in stages:
            cause: Exception | None = None
            try:
                stage()
            except CohortError:
                raise
            except _FAULTS as error:
                cause = error
            except (MemoryError, RuntimeError) as error:
                if not _no_memory(error):
                    raise
                raise MemoryError(
                    "a training step needs more memory than there is: encode in pieces with "
                    f"chunk=4096 or less, or lower batch_size or ndims ({one_line(error)})."
                ) from error
            # The next stage would wait for the other ranks.
            if any(anywhere(cause is not None, device=device)):
                return cause or RuntimeError("the step failed in another process")
        return None

    def add(self, cause: Exception, where: str) -> None:
        """Count one more failed step.

        Raises:
            RuntimeError: From the cause, if too many steps have failed.
        """
        self.count, self.last = self.count + 1, cause
        what = f"{where}, {type(cause).__name__}: {cause}"
        _log.warning("failed step %d (%d are tolerated), skipped: %s", self.count, self.most, what)
        if self.count > self.most:
            raise RuntimeError(
                f"training stops after {self.count} failed steps, max_faults={self.most} are "
                f"tolerated; the last: {what}"
            ) from cause


class Snapshot:
    """The state of a model besides its parameters, to be restored if a step fails.

    A module whose state grows with the cohort has a method `snapshot` that copies only changes.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
        parts = dict(self._with_state())
        large = [name for name, part in parts.items() if hasattr(part, "snapshot")]
        self.kept = [parts.pop(name).snapshot() for name in large]  # type: ignore[operator]
        # Tensors with gradient history cannot be copied.
        states = {name: part.get_extra_state() for name, part in parts.items()}
        self.states = copy.deepcopy(apply_to_collection(states, Tensor, Tensor.detach))

    @torch.no_grad()
    def restore(self) -> None:
        """Undo all changes since the snapshot; drop gradients."""
        for name, buffer in self.model.named_buffers():
            if name in self.buffers:
                buffer.copy_(self.buffers[name])
        for name, part in self._with_state():
            if name in self.states:
                part.set_extra_state(self.states[name])
        for part in self.kept:
            part.restore()
        self.model.zero_grad()

    def _with_state(self) -> list[tuple[str, nn.Module]]:
        """The modules of the model with state besides parameters and buffers."""
        none = nn.Module.get_extra_state
        return [
            pair for pair in self.model.named_modules() if type(pair[1]).get_extra_state != none
        ]


def check_finite(value: Tensor, what: str) -> None:
    """Raise FloatingPointError unless all numbers are finite."""
    if not bool(value.isfinite().all()):
        raise FloatingPointError(f"the {what} is not finite: {float(value.detach().sum())}")


def one_line(error: BaseException) -> str:
    """The text of an error, for another message."""
    text = " ".join(str(error).split())[:240]
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}"


def _no_memory(error: BaseException) -> bool:
    return isinstance(error, _OUT_OF_MEMORY) or "can't allocate memory" in str(error)
