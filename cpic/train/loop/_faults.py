"""Steps that fail: counted, logged with their cause, without a trace in the model, and not many."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from cpic._errors import CohortError
from cpic.train.loop._distributed import anywhere

# What a single batch can cause: numbers that are not finite, a matrix of low rank, a scan that
# cannot be read. All else is a fault of the program or the machine, and ends the run at once.
_FAULTS = (ValueError, ArithmeticError, LinAlgError, OSError)
_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)

log = logging.getLogger(__name__)


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
        """Run the stages of a step, in all processes or none, until one fails; returns the cause.

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
                    f"chunk=4096 or less, or lower batch_size or ndims ({_first_line(error)})."
                ) from error
            # The next stage waits for the other processes.
            if anywhere(cause is not None, device):
                return cause or RuntimeError("the step failed in another process")
        return None

    def add(self, cause: Exception, where: str) -> None:
        """Count one more failing step.

        Raises:
            RuntimeError: From the cause, if there are too many.
        """
        self.count, self.last = self.count + 1, cause
        log.warning(
            "failing step %d (%d may fail), skipped: %s, %s: %s",
            self.count,
            self.most,
            where,
            type(cause).__name__,
            cause,
        )
        if self.count > self.most:
            raise RuntimeError(
                f"training stops after {self.count} failing steps, max_faults={self.most} may "
                f"fail; the last: {where}, {type(cause).__name__}: {cause}"
            ) from cause


class Kept:
    """What a step changes in a model besides its parameters, to be put back if it fails."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
        self.states = {
            name: _copied(part.get_extra_state()) for name, part in with_extra_state(model)
        }

    def put_back(self) -> None:
        """Undo what happened since; drops gradients."""
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                if name in self.buffers:
                    buffer.copy_(self.buffers[name])
        for name, part in with_extra_state(self.model):
            part.set_extra_state(self.states[name])
        self.model.zero_grad()


def with_extra_state(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model that hold more than parameters and buffers."""
    for name, part in model.named_modules():
        if type(part).get_extra_state is not nn.Module.get_extra_state:
            yield name, part


def check_finite(value: Tensor, what: str) -> None:
    """Raise FloatingPointError unless all numbers are finite."""
    if not bool(value.isfinite().all()):
        raise FloatingPointError(f"the {what} is not finite: {float(value.detach().sum())}")


def _copied(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_copied(value) for value in state)
    return copy.deepcopy(state)


def _no_memory(error: BaseException) -> bool:
    return isinstance(error, _OUT_OF_MEMORY) or "can't allocate memory" in str(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
