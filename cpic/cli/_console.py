"""How a command ends: with an exit code and, on an error, a one-line message."""

import contextlib
import io
import os
import select
import signal
import sys
import threading
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from typing import Any

_WRONG, _INTERRUPTED, _NOBODY_READS = 2, 130, 141


def ended(action: Callable[[], int], name: str) -> int:
    """Run a command and return its exit code; report an exception in one line.

    Args:
        action: The command.
        name: Name of the command in messages.
    """
    _any_sign()
    try:
        with _interrupts():
            try:
                return action()
            finally:
                if sys.stdout:
                    sys.stdout.flush()
    except BrokenPipeError as error:
        return _NOBODY_READS if _unread() else _say(name, error)
    except KeyboardInterrupt as error:
        return _say(name, error, _INTERRUPTED)
    except RuntimeError as error:
        if error.__cause__ is None:
            # Not one with advice for the user: debugging it needs the traceback.
            raise
        return _say(name, error)
    except (ArgumentError, ValueError, OSError, ImportError, MemoryError) as error:
        return _say(name, error)


def _say(name: str, error: BaseException, code: int = _WRONG) -> int:
    kinds = {KeyboardInterrupt: "stopped", MemoryError: "there is not enough memory"}
    text = " ".join(line.strip() for line in str(error).splitlines()) or kinds.get(type(error))
    with contextlib.suppress(BrokenPipeError):
        print(f"{name}: {text or type(error).__name__}", file=sys.stderr)
    return code


def _any_sign() -> None:
    """Escape characters in names of files and patients that the terminal cannot print."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _unread() -> bool:
    """Check whether the reader of the output is gone; if so, discard all further output."""
    gone = [stream for stream in (sys.stdout, sys.stderr) if stream and _is_gone(stream)]
    for stream in gone:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return bool(gone)


def _is_gone(stream: Any) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError):
        # A system without `poll`, or a stream that is not a file.
        return False


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Raise an interrupt again if a library that was being imported suppressed it."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def stop(number: int, frame: Any) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    except Exception as error:
        if seen:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if seen:
        raise KeyboardInterrupt
