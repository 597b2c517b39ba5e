"""Map a function over patients with Dask distributed; shared by the scripts.

By default a cluster of processes on this machine, one thread each; or an existing one by its
address, whose workers need `cpic` installed and must see the same folders. A patient that fails is
reported and the others continue, even if it takes its worker process down.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import dask
from dask.system import CPU_COUNT
from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster, wait
from jsonargparse import auto_cli
from tqdm import tqdm

from cpic._errors import CohortError, VolumeError

# A terminal sends Ctrl-C to the workers too, but this process has to stop them.
_DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
# Worker deaths that a patient survives, first with others and then once more alone.
_LOSSES = 1
_POLL_SECONDS = 5
_LONELY_SECONDS = 60
_CONNECT_SECONDS = 10
# Exit code of a command whose output nobody reads.
_UNREAD = 141


class EngineError(RuntimeError):
    """The cluster cannot be used."""


@dataclasses.dataclass
class Report:
    """The result of mapping a function over patients.

    Attributes:
        results: return values of the function.
        failed: reasons of failures.
        seconds: time of each patient.
        total: total time in seconds.
    """

    results: dict[str, Any] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    total: float = 0.0

    def __str__(self) -> str:
        n = len(self.results) + len(self.failed)
        line = f"{n} patients: {len(self.results)} done, {len(self.failed)} failed, "
        return f"{line}{self.total:.1f} s" + failure_table(self.failed)


def failure_table(failed: Mapping[str, str]) -> str:
    """Patients and reasons as lines, each after a line break."""
    width = max([7, *map(len, failed)])
    rows = [f"{name:<{width}}  {reason}" for name, reason in sorted(failed.items())]
    return "".join(f"\n{row}" for row in ([f"{'patient':<{width}}  reason", *rows] * bool(rows)))


class Engine:
    """Processes to map functions on; started with the first patient and stopped at the end.

    Args:
        scheduler: address of a Dask scheduler, such as "tcp://10.0.0.1:8786".
        workers: processes on this machine; None is one per core, 0 runs in this process.
        progress: show progress bars.
    """

    def __init__(
        self, *, scheduler: str | None = None, workers: int | None = None, progress: bool = True
    ) -> None:
        if workers is not None and workers < 0:
            raise EngineError(f"workers needs a number of at least 0, got {workers}.")
        self._scheduler, self._progress = scheduler, progress
        self._workers = CPU_COUNT if workers is None else workers
        self._stack = contextlib.ExitStack()
        self._client: Client | None = None
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self._client = None
        self._stack.close()

    def runner(
        self,
        lost: Callable[[str, str], Any],
        *,
        fatal: tuple[type[BaseException], ...] = (),
        desc: str = "",
    ) -> Callable[..., Iterator[Any]]:
        """A function to pass to `check_cohort` and `prepare` as `run`; records times in `seconds`.

        Args:
            lost: builds the result of a patient without one, from its name and the reason.
            fatal: as in `map`.
            desc: as in `map`.
        """

        def run(job: Callable, names: Iterable[str], files: Iterable) -> Iterator[Any]:
            patients = {name: (name, parts) for name, parts in zip(names, files, strict=True)}
            report = self.map(job, patients, fatal=fatal, desc=desc)
            self.seconds |= report.seconds
            for name in patients:
                failed = name in report.failed
                yield lost(name, report.failed[name]) if failed else report.results[name]

        return run

    def map(
        self,
        function: Callable[..., Any],
        patients: Mapping[str, tuple],
        *,
        fatal: tuple[type[BaseException], ...] = (),
        desc: str = "",
    ) -> Report:
        """Call `function(*arguments)` for each patient.

        Args:
            function: from an installed module; must depend only on its arguments.
            patients: arguments by name.
            fatal: exceptions that would affect every patient: the first one ends the run and is
                raised.
            desc: label of the progress bar.

        Returns:
            Results and failures. A patient whose worker dies is retried, finally alone.

        Raises:
            EngineError: if the scheduler cannot be reached or all workers are gone.
            KeyboardInterrupt: on Ctrl-C.
        """
        report, begin = Report(), time.perf_counter()
        if not patients:
            return report
        if self._client is None:
            n_workers = min(self._workers, len(patients))
            self._client = self._stack.enter_context(_connected(self._scheduler, n_workers))
        bar = tqdm(total=len(patients), desc=desc, disable=not self._progress, unit="patient")
        with bar, _interrupts() as stopped:
            job = _Job(self._client, function, patients, report, fatal, bar, stopped)
            width = max(1, sum(self._client.nthreads().values()))
            # A worker may have died because another patient exhausted the memory.
            for name in job.run(list(patients), width):
                for _ in job.run([name], 1):
                    times = "again" if self._scheduler else f"{2 * (_LOSSES + 1)} times"
                    reason = f"its worker process died {times}: too little memory, or a crash"
                    job.fail(name, reason)
        report.total = time.perf_counter() - begin
        return report


@dataclasses.dataclass
class _Job:
    client: Client
    function: Callable[..., Any]
    patients: Mapping[str, tuple]
    report: Report
    fatal: tuple[type[BaseException], ...]
    bar: tqdm
    stopped: threading.Event

    def run(self, names: list[str], width: int) -> list[str]:
        """Process these patients, `width` at a time; return those whose workers died."""
        waiting, flying, suspects = iter(names), {}, []
        try:
            while True:
                # No more than can run: tasks that wait at a worker are blamed with it when it dies.
                for name in itertools.islice(waiting, width - len(flying)):
                    flying[self._submit(name)] = (name, time.perf_counter())
                if not flying:
                    return suspects
                for future in _finished(self.client, list(flying), self.stopped):
                    name, begin = flying.pop(future)
                    if self._settle(name, future, time.perf_counter() - begin):
                        suspects.append(name)
        except CancelledError:  # while waiting, or while a result is fetched
            raise EngineError(
                "the Dask scheduler has gone away; start it and run the same command again: "
                "finished work is kept."
            ) from None
        finally:
            self.client.cancel(list(flying), reason="stopped")

    def _submit(self, name: str) -> Future:
        key = f"{name}-{uuid.uuid4().hex[:8]}"
        return self.client.submit(self.function, *self.patients[name], key=key, pure=False)

    def _settle(self, name: str, future: Future, seconds: float) -> bool:
        """Record the outcome; true if the worker died."""
        if future.status == "finished":
            self.report.results[name] = future.result()
            self.report.seconds[name] = seconds
            self.bar.update()
            return False
        error = future.exception()
        if isinstance(error, KilledWorker):
            return True
        if isinstance(error, self.fatal):
            raise error
        # Errors of the package are sentences; others need their type in the message.
        plain = type(error).__module__.startswith("cpic.")
        text = " ".join(str(error).split())
        self.fail(name, text if plain else f"{type(error).__name__}: {text}")
        return False

    def fail(self, name: str, reason: str) -> None:
        self.report.failed[name] = reason
        self.bar.update()
        self.bar.set_postfix(failed=len(self.report.failed))


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set by Ctrl-C, which is raised as usual.

    Python drops exceptions raised in some callbacks, such as those of the garbage collector; a
    waiting thread therefore checks this flag from time to time.
    """
    stopped = threading.Event()

    def stop(number: int, frame: Any) -> NoReturn:
        stopped.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _finished(client: Client, futures: list[Future], stopped: threading.Event) -> Iterable[Future]:
    """Wait for at least one future, but not forever if the workers are gone."""
    lonely = 0.0
    while True:
        if stopped.is_set():
            raise KeyboardInterrupt
        try:
            return wait(futures, timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            lonely = 0.0 if client.nthreads() else lonely + _POLL_SECONDS
            if lonely >= _LONELY_SECONDS:
                raise EngineError(
                    "the Dask cluster has no worker left; start some and run the same command "
                    "again: finished work is kept."
                ) from None


@contextlib.contextmanager
def _connected(scheduler: str | None, n_workers: int) -> Iterator[Client]:
    # Errors are reported here in a sentence; Dask would add its traceback.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=_CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise EngineError(
                f"no Dask scheduler answers at {scheduler}; start one with `dask scheduler`, or "
                "leave the address out to work on this machine."
            ) from error
        with client:
            yield client
        return
    # Small batched arrays are many times slower on several threads than on one.
    own = {"preload": [_DEAF], "env": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
    with dask.config.set({"distributed.scheduler.allowed-failures": _LOSSES}):
        cluster = LocalCluster(
            n_workers=max(1, n_workers),
            threads_per_worker=1,
            processes=n_workers > 0,
            # Any free port: a second run on this machine must not collide with the first.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
            **(own if n_workers else {}),
        )
        try:
            with Client(cluster) as client:
                yield client
        finally:
            # On a busy machine a worker may end late; its results are here.
            with contextlib.suppress(TimeoutError):
                cluster.close()


def call(main: Callable[..., int | None]) -> NoReturn:
    """Run a script's `main` with the command line arguments, and exit."""
    try:
        code = auto_cli(main, as_positional=True)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        # The reader is gone, as with `| head`: not an error. Python flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_UNREAD)
    except KeyboardInterrupt:
        print("\nStopped. Finished work is kept; the same command continues.", file=sys.stderr)
        sys.exit(130)
    except (EngineError, CohortError, VolumeError, OSError) as error:
        sys.exit(str(error))
