import os
import random
import signal
import subprocess
import threading
from pathlib import Path

# Small batched linear algebra is many times slower on several threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has interrupts ignored, by all they start as well.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
import torch
from filelock import FileLock

from cpic._vision import declare_operators
from tests import card

declare_operators()  # tests may import Lightning first
DEVICES = ["cpu", "card", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """No test depends on the numbers that others have drawn, so on their order."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


def pytest_collection_modifyitems(config, items):
    """Tests of a GPU are none of a machine without one, so nothing is reported as skipped."""
    if torch.cuda.is_available():
        return
    gone = [item for item in items if item.get_closest_marker("cuda")]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if not item.get_closest_marker("cuda")]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=DEVICES)
def device(request):
    """A device with numbers of full precision; see `tests.card` for that which every machine has.

    On the CPU, what is created without saying where lands on another device.
    """
    if request.param == "cuda":
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield torch.device("cuda", 0)
    elif request.param == "card":
        with card.Card():
            yield card.DEVICE
    else:
        with card.Card(), card.DEVICE:
            yield torch.device("cpu")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser: the one that is there, else one that is fetched (once)."""
    script = Path(__file__).resolve().parents[1] / "book" / "find_chromium.sh"
    (script.parents[1] / ".cache").mkdir(exist_ok=True)
    with FileLock(script.parents[1] / ".cache" / "chromium.lock"):
        found = subprocess.run(["bash", script], capture_output=True, text=True)
    if found.returncode:
        pytest.fail(found.stderr)
    return found.stdout.strip()


@pytest.fixture(scope="session")
def browser(chromium):
    """One browser for all tests: playwright allows no second one in a process."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Name resolution is off as well: what is not in the folder cannot come from anywhere.
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        yield browser
        browser.close()
