"""How a command ends: with a code, and one line where something is wrong."""

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
    """Run a command; its exit code, or that of what ended it, with one line of explanation.

    Args:
        action: The command.
        name: What it is called.
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
            # Not one of those that say what to do: whoever repairs it needs to see where it was.
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
    """Names of files and patients may hold signs that a terminal does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _unread() -> bool:
    """Whether nobody reads what is printed; then nothing is, not even when Python ends."""
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
        # A system without polls, or a stream that is no file.
        return False


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Raise an interrupt again where a library that was just loading dropped it."""
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
