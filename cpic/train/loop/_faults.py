"""Steps that fail: counted, logged with their cause, without a trace in the model, and not many."""

import copy
import logging
from collections.abc import Callable, Sequence

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from cpic._errors import CohortError
from cpic.train.loop._distributed import anywhere

# What a single batch can cause: numbers that are not finite, a matrix of low rank, a scan that
# cannot be read. All else is a fault of the program or the machine, and ends the run at once.
_FAULTS = (ValueError, ArithmeticError, LinAlgError, OSError)
_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)

_log = logging.getLogger(__name__)


class Faults:
    """Count of the failing steps of a run.

    Args:
        most: How many may fail; one more ends the run.
    """

    def __init__(self, most: int = 3):
        self.most, self.count = most, 0
        self.last: Exception | None = None

    def attempt(
        self, stages: Sequence[Callable[[], None]], device: torch.device
    ) -> Exception | None:
        """Run the stages of a step, on all ranks or none, until one fails; returns the cause.

        Raises:
            MemoryError: If there is not enough, with what to do about it.
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
            # The next stage waits for the other ranks.
            if any(anywhere(cause is not None, device=device)):
                return cause or RuntimeError("the step failed in another process")
        return None

    def add(self, cause: Exception, where: str) -> None:
        """Count one more failing step.

        Raises:
            RuntimeError: From the cause, if there are too many.
        """
        self.count, self.last = self.count + 1, cause
        what = f"{where}, {type(cause).__name__}: {cause}"
        _log.warning("failing step %d (%d may fail), skipped: %s", self.count, self.most, what)
        if self.count > self.most:
            raise RuntimeError(
                f"training stops after {self.count} failing steps, max_faults={self.most} may "
                f"fail; the last: {what}"
            ) from cause


class Snapshot:
    """What a step changes in a model besides its parameters, to be restored if it fails."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
        # A copy of a tensor that a gradient flows through is refused.
        states = {name: part.get_extra_state() for name, part in self._with_state()}
        self.states = copy.deepcopy(apply_to_collection(states, Tensor, Tensor.detach))

    @torch.no_grad()
    def restore(self) -> None:
        """Undo what happened since; drops gradients."""
        for name, buffer in self.model.named_buffers():
            if name in self.buffers:
                buffer.copy_(self.buffers[name])
        for name, part in self._with_state():
            part.set_extra_state(self.states[name])
        self.model.zero_grad()

    def _with_state(self) -> list[tuple[str, nn.Module]]:
        """The parts of the model that hold more than parameters and buffers."""
        none = nn.Module.get_extra_state
        return [
            pair for pair in self.model.named_modules() if type(pair[1]).get_extra_state != none
        ]


def check_finite(value: Tensor, what: str) -> None:
    """Raise FloatingPointError unless all numbers are finite."""
    if not bool(value.isfinite().all()):
        raise FloatingPointError(f"the {what} is not finite: {float(value.detach().sum())}")


def one_line(error: BaseException) -> str:
    """What an error says, for another message."""
    text = " ".join(str(error).split())[:240]
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}"


def _no_memory(error: BaseException) -> bool:
    return isinstance(error, _OUT_OF_MEMORY) or "can't allocate memory" in str(error)
