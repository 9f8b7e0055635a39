"""The browser's part of `binder/prove`: notebooks run in a slow Chromium, and a primary is killed.

Only the server and what it starts are confined, as on Binder; the browser is the student's. It
needs Playwright in the Python that runs `binder/prove`, and Chromium.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Limits of the figures, in seconds.
RUN_ALL_LIMIT, FIRST_KILL_LIMIT = 90, 60
#: Limit of the memory of the server and all that it starts, bytes.
PEAK_LIMIT = 1.3e9
#: The browser's processor is so many times slower than this machine's.
THROTTLE = 4
TOKEN = "token"
PATIENCE_MS = 300_000
IDLE = """() => {
    const session = window.jupyterapp?.shell?.currentWidget?.sessionContext;
    return session?.isReady && session.session?.kernel?.status === 'idle';
}"""
RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells')"
ERRORS = ".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']"


@dataclass(frozen=True)
class Figure:
    """One figure with its limit."""

    name: str
    seconds: float
    limit: float
    peak: float
    failed: str = ""

    def verdict(self) -> str:
        """Say whether the figure is within its limits."""
        if self.failed:
            return self.failed
        if self.seconds > self.limit:
            return f"over {self.limit} s"
        return "ok" if self.peak <= PEAK_LIMIT else f"over {PEAK_LIMIT / 1e9:.1f} GB"


def find_missing() -> str | None:
    """Say what the browser's part lacks on this machine; None if nothing."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "Playwright"
    return None if find_chromium() else "Chromium"


def find_chromium() -> str | None:
    """Find Chromium's program."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def serve(popen: Callable[..., subprocess.Popen[str]]) -> Iterator[tuple[int, int]]:
    """Serve JupyterLab as Binder does, through start; gives its port and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = popen(
        *("binder/start", "jupyter", "lab", "--no-browser", f"--ServerApp.port={port}"),
        *("--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"),
        "--LabApp.expose_app_in_browser=True",
    )
    try:
        end = time.monotonic() + PATIENCE_MS / 1000
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=10).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.2)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait(60)


def measure(notebooks: list[Path], port: int, meter: Callable[[], Any]) -> Iterator[Figure]:
    """Open each notebook in a page of its own, run all of it, and kill the primary of 00.

    Parameters
    ----------
    notebooks
        The notebooks.
    port
        The server's.
    meter
        Function that makes a thread with the attribute `peak`, which measures until it is closed.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for notebook in notebooks:
            page = _open(browser, f"http://127.0.0.1:{port}/lab/tree/notebooks/{notebook.name}")
            yield _figure(notebook.stem, RUN_ALL_LIMIT, meter, lambda page=page: _run_all(page))
            if notebook.stem == "00_index":
                name = "first click to a kill"
                yield _figure(name, FIRST_KILL_LIMIT, meter, lambda page=page: _kill(page))
            page.context.close()
            _end_kernels(port)
        browser.close()


def _open(browser: Any, address: str) -> Any:
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    page.set_default_timeout(PATIENCE_MS)
    slow = page.context.new_cdp_session(page)
    slow.send("Emulation.setCPUThrottlingRate", {"rate": THROTTLE})
    page.goto(f"{address}?reset&token={TOKEN}", wait_until="commit")
    page.wait_for_function(IDLE)
    return page


def _figure(name: str, limit: float, meter: Callable[[], Any], deed: Callable[[], str]) -> Figure:
    measured = meter()
    measured.start()
    begin = time.monotonic()
    try:
        failed = deed()
    except Exception as error:
        failed = f"failed: {str(error).splitlines()[0]}"
    seconds = time.monotonic() - begin
    measured.close()
    return Figure(name, seconds, limit, measured.peak, failed)


def _run_all(page: Any) -> str:
    """Run all cells, and wait until they are done and the kernel is idle."""
    page.evaluate(RUN_ALL)
    page.wait_for_function(IDLE)
    errors = page.locator(ERRORS).count()
    return f"{errors} cells with an error" if errors else ""


def _kill(page: Any) -> str:
    """Start a pair in the dashboard of 00, and kill its primary with half of a checkpoint sent."""
    page.locator("button.jupyter-button").filter(has_text="Start").first.click()
    moment = "with half of a checkpoint sent"
    page.locator("select").filter(has_text=moment).first.select_option(moment)
    page.get_by_role("button", name="Kill primary").click()
    page.get_by_text("took over from checkpoint").first.wait_for()
    return ""


def _end_kernels(port: int) -> None:
    """End all kernels, and what they have started."""
    url, headers = f"http://127.0.0.1:{port}/api/sessions", {"Authorization": f"token {TOKEN}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        sessions = json.load(answer)
    for each in sessions:
        request = urllib.request.Request(f"{url}/{each['id']}", method="DELETE", headers=headers)
        urllib.request.urlopen(request).close()
