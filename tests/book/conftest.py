"""The built site and a real browser, once a session."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "book" / "build.py"


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
    if not build.is_fresh():
        done = subprocess.run([sys.executable, BUILD], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return build.SITE


@pytest.fixture(scope="session")
def chromium() -> str:
    path = os.environ.get("CPIC_CHROMIUM") or shutil.which("chromium")
    path = path or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.skip("needs Chromium: apt-get install chromium, or set CPIC_CHROMIUM to its path")
    return path


@pytest.fixture(scope="session")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Name resolution is off as well: what is not in the folder cannot come from anywhere.
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        yield browser
        browser.close()
