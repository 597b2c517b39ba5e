import os
import shutil

# Small batched linear algebra is many times slower on several threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def chromium() -> str:
    path = os.environ.get("CPIC_CHROMIUM") or shutil.which("chromium")
    path = path or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.fail("needs Chromium: apt-get install chromium, or set CPIC_CHROMIUM to its path")
    return path


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
