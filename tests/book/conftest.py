"""The built site, once a session."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "book" / "build.py"
sys.path.insert(0, str(BUILD.parent))  # where its parts find each other


def load_build():
    """book/build.py as a module; the book is no package."""
    spec = importlib.util.spec_from_file_location("book_build", BUILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the site, built now if it is missing or older than its sources."""
    build = load_build()
    build.STAMP.parent.mkdir(exist_ok=True)
    # Of the processes that share the tests one builds, the others wait.
    with FileLock(build.STAMP.with_name("building.lock")):
        done = subprocess.run([sys.executable, BUILD], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return build.SITE
