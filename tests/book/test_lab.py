"""A chapter opened in a real JupyterLab: all cells run, the slider computes another picture."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.book.conftest import ROOT

pytestmark = [
    pytest.mark.book,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

START_SECONDS = 240
RUN_MILLISECONDS = 180_000


@pytest.fixture
def lab(tmp_path):
    """Address of a JupyterLab on this machine alone, its token kept on."""
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    shutil.copy(ROOT / "book" / "_template.ipynb", folder / "chapter.ipynb")
    token = secrets.token_hex(16)
    environment = {
        k: v for k, v in os.environ.items() if k not in ("CPIC_EXPLORE", "JPY_SESSION_NAME")
    }
    environment |= {f"JUPYTER_{n}_DIR": str(home / n) for n in ("CONFIG", "RUNTIME")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0"]
    command += [
        "--allow-root",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
    ]
    log = tmp_path / "lab.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )
        try:
            yield address_from(log, server), token
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def address_from(log, server) -> str:
    for _ in range(START_SECONDS * 4):
        found = re.search(r"http://127\.0\.0\.1:\d+/", log.read_text(errors="replace"))
        if found:
            return found[0]
        assert server.poll() is None, log.read_text(errors="replace")[-2000:]
        time.sleep(0.25)
    raise AssertionError(f"no address after {START_SECONDS} s: {log.read_text(errors='replace')}")


@pytest.mark.timeout(900)
def test_slider_is_live_in_jupyterlab(lab, browser):
    address, token = lab
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    outside = []
    context.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: route.abort())
    page = context.new_page()
    page.on("request", lambda r: outside.append(r.url) if is_outside(r.url) else None)
    try:
        # Without the token there is no way in.
        assert "login" in page.goto(f"{address}lab").url
        page.goto(f"{address}lab/tree/chapter.ipynb?token={token}")
        # The circle in the toolbar says idle before the kernel is there; the status bar does not.
        page.get_by_text("| Idle").wait_for(timeout=RUN_MILLISECONDS)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        slider = page.locator(".jupyter-widgets [role=slider]").first
        slider.wait_for(timeout=RUN_MILLISECONDS)
        image = page.locator(".jupyter-widgets img").first
        image.wait_for(timeout=RUN_MILLISECONDS)
        before = image.get_attribute("src"), image.get_attribute("alt")
        slider.scroll_into_view_if_needed()
        slider.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "s => document.querySelector('.jupyter-widgets img').getAttribute('src') !== s",
            arg=before[0],
            timeout=RUN_MILLISECONDS,
        )
        after = image.get_attribute("alt")
        assert (before[1], after) == (
            "The image reconstructed at rank 1",
            "The image reconstructed at rank 2",
        )
        assert page.locator("figure.cpic-explore input[type=range]").count() == 0
        assert page.locator(".jp-OutputArea-output[data-mime-type*=error]").count() == 0
        assert outside == []
    finally:
        context.close()


def is_outside(url: str) -> bool:
    return url.startswith("http") and not url.startswith("http://127.0.0.1")
