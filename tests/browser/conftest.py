"""A browser and a JupyterLab for the tests of what is clicked and dragged; skipped by name where they are missing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("chromium", "chromium-browser", "google-chrome")
# A browser that minds its own business, and whose fingers and mouse behave the same everywhere.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots and measured numbers are kept, for a person to look at."""
    folder = Path(os.environ.get("KINELIB_ARTEFACTS") or ROOT / "artefacts") / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Debian's Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; run: make install")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PLACES)), None)
    if program is None:
        pytest.skip("no Chromium on this machine; install one (apt-get install chromium) or name it in CHROMIUM")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=FLAGS, headless=True)
        yield running
        running.close()


@pytest.fixture
def open_page(browser):
    """A function that opens a page in a context of its own; what the page logs as an error fails the test."""
    contexts, errors = [], []

    def open_one(width=1180, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        return page

    yield open_one
    for context in contexts:
        context.close()
    ours = [error for error in errors if "ResizeObserver" not in error]
    assert not ours, ours


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """A JupyterLab with settings and a folder of its own."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    news = folder / "settings" / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True)
    (news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    (folder / "files").mkdir()
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
    options += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={folder / 'files'}", "--ServerApp.password="]
    options += ["--ServerApp.ip=127.0.0.1", "--LabApp.news_url="]
    log = (folder / "log").open("w")
    environment = os.environ | own | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(address, server, folder / "log")
        yield Lab(address, folder / "files")
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


def _wait_until_up(address: str, server: subprocess.Popen, log: Path, patience: float = 90) -> None:
    ends = time.monotonic() + patience
    while time.monotonic() < ends and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


class Lab:
    """A running JupyterLab and the folder it shows."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address, folder

    def write(self, name: str, *cells: str) -> str:
        """Puts a notebook there; returns where it is opened."""
        made = [
            {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
            for i, source in enumerate(cells)
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        content = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (self.folder / name).write_text(json.dumps(content))
        return f"{self.address}/doc/tree/{name}"

    def run_all(self, page, address: str) -> None:
        """Opens a notebook and does what Run > Run All Cells does, once its kernel is there."""
        page.goto(address)
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function(
            """() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === "idle" """
        )
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
