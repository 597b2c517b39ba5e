"""Where the processor seconds of a training step go, and how fast its matrix products are."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import process_time
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cpic.bottleneck import _half_sweep
from cpic.nn import VolumeEntries
from tests.bench.training import Training


class Stages:
    """Seconds by name; those of an inner stage do not count for the outer one."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = process_time()

    def begin(self, name: str) -> None:
        """Open a stage."""
        self._book()
        self._open.append(name)

    def end(self) -> None:
        """Close the innermost one."""
        self._book()
        self._open.pop()

    def _book(self) -> None:
        now = process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since  # type: ignore[assignment]
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage around a block."""
        self.begin(name)
        yield
        self.end()

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its calls in a stage."""

        def call(*args: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*args, **options)

        return call


def stages_of(training: Training, steps: int = 5) -> dict[str, float]:
    """Medians over steps of the seconds of each stage, for the whole batch."""
    found = []
    for _ in range(steps):
        stages = Stages()
        with ExitStack() as stack, stages.stage("index sets and the rest"):
            _watch(training, stages, stack)
            training.step()
        found.append(stages.seconds)
    names = sorted({name for seconds in found for name in seconds})
    return {name: statistics.median(seconds[name] for seconds in found) for name in names}


def _watch(training: Training, stages: Stages, stack: ExitStack) -> None:
    model = training.model
    targets = [
        (VolumeEntries, "_read", "reading cubes"),
        (VolumeEntries, "__call__", "distinct positions"),
        (_half_sweep, "_choose", "maxvol"),
        (_half_sweep, "solved_train", "solving for cores"),
        (model.components, "forward", "projection"),
        (model.head, "forward", "head"),
        (training.optimizer, "step", "optimizer"),
        (nn.utils, "clip_grad_norm_", "optimizer"),
        (torch.Tensor, "backward", "backward behind the encoder"),
    ]
    for owner, name, stage in targets:
        wrapped = stages.wrapped(stage, getattr(owner, name))
        stack.enter_context(patch.object(owner, name, wrapped))
    inner = training.encoder.forward

    def forward(cubes: Tensor) -> Tensor:
        with stages.stage("encoder forward"):
            vectors = inner(cubes)
        if vectors.grad_fn is not None:
            # Its nodes run one after the other, as each has the latest number at its turn.
            vectors.grad_fn.register_prehook(lambda _: stages.begin("encoder backward"))
            _first_node(vectors.grad_fn).register_hook(lambda *_: stages.end())
        return vectors

    stack.enter_context(patch.object(training.encoder, "forward", forward))


def _first_node(node: Any) -> Any:
    """The node of the first layer: the convolution whose input has no gradient."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        first, *others = [inner for inner, _ in node.next_functions] or [None]
        if first is None and node.name().startswith("Convolution"):
            break
        waiting += [inner for inner in (first, *others) if inner is not None]
    return node


def products_of_a_cube(encoder: nn.Module, size: int, n: int = 8) -> tuple[float, float]:
    """Floating-point operations of a cube, forward and backward."""
    cubes = torch.zeros(n, 1, size, size, size)
    with FlopCounterMode(display=False) as forward:
        vectors = encoder(cubes)
    with FlopCounterMode(display=False) as backward:
        vectors.sum().backward()
    return forward.get_total_flops() / n, backward.get_total_flops() / n


def product_rate(size: int = 1024, times: int = 10) -> float:
    """Operations a processor second of float32 matrix products, the fastest of some."""
    left, right = torch.rand(size, size), torch.rand(size, size)
    best = float("inf")
    for _ in range(times):
        start = process_time()
        torch.mm(left, right)
        best = min(best, process_time() - start)
    return 2 * size**3 / best
