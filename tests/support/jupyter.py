"""Jupyter's servers and pages for tests: JupyterLab, Notebook 7 and Voilà, in headless Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from browser import CHROMIUM

#: A machine with one slow core needs a while for a server, its page and a kernel.
PATIENCE_MS = 180_000
TOKEN = "token"
#: Voilà's own page asks for these, whatever notebook it shows.
ICONS = "/@fortawesome/fontawesome-free@"

#: A kernel that a test ends does not come back.
NO_RESTART = "--KernelManager.autorestart=False"

IDLE = """() => {
    const session = window.jupyterapp?.shell?.currentWidget?.sessionContext;
    return session?.isReady && session.session?.kernel?.status === 'idle';
}"""
RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells')"


class Line(threading.Thread):
    """Stands between browser and server, and can be cut: a TCP proxy.

    Parameters
    ----------
    port
        The server's.
    """

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._whole = True
        self._listening = threading.Event()
        self.port = 0

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def cut(self) -> None:
        """Drop all connections, and let nobody through."""
        self._ask(self._cut())

    def mend(self) -> None:
        """Let everybody through again."""
        self._whole = True

    def close(self) -> None:
        self._ask(self._cut())
        self._loop.call_soon_threadsafe(self._done.set)
        self.join()

    def begin(self) -> None:
        self.start()
        assert self._listening.wait(30)

    def _ask(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _serve(self) -> None:
        self._done = asyncio.Event()
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        async with server:
            await self._done.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _cut(self) -> None:
        self._whole = False
        for writer in list(self._open):
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self._whole:
                return
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            return
        finally:
            if not self._whole:
                writer.transport.abort()
        self._open |= {writer, there[1]}
        await asyncio.gather(self._copy(reader, there[1]), self._copy(there[0], writer))
        self._open -= {writer, there[1]}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort() if not self._whole else writer.close()


class Site:
    """A server with a directory of notebooks.

    Attributes
    ----------
    kind
        ``lab``, ``notebook`` or ``voila``.
    line
        The line to it, which can be cut.

    Parameters
    ----------
    server
        The server's process.
    """

    def __init__(self, kind: str, line: Line, server: int) -> None:
        self.kind = kind
        self._server = server
        self.line = line
        self.url = f"http://127.0.0.1:{line.port}"

    def address(self, notebook: str) -> str:
        """Give where a notebook is to be seen."""
        way = {"lab": "lab/tree", "notebook": "notebooks", "voila": "voila/render"}[self.kind]
        reset = "reset&" if self.kind == "lab" else ""
        return f"{self.url}/{way}/{notebook}?{reset}token={TOKEN}"

    def end_kernels(self) -> None:
        """End all kernels, and what they have started."""
        if self.kind == "voila":
            # It has no way to list them, and a page that closes ends none.
            for kernel in psutil.Process(self._server).children():
                _kill(kernel.pid)
            return
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")

    def nodes(self) -> list[psutil.Process]:
        """Give the living nodes that its kernels have started."""
        found = []
        for each in psutil.Process(self._server).children(recursive=True):
            with suppress(psutil.Error):
                if each.status() != psutil.STATUS_ZOMBIE and "colobench.node" in each.cmdline():
                    found.append(each)
        return found

    def ask(self, path: str, method: str = "GET") -> Any:
        """Use the server's REST interface."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}", method=method, headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def _kill(pid: int) -> None:
    """End a process, and wait until it has ended; its parent may never ask how."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        ended, _, _ = select.select([process], [], [], 60)
        assert ended, f"process {pid} was killed, and goes on"
    finally:
        os.close(process)


def _command(kind: str, port: int, root: Path) -> list[str]:
    module = {"lab": "jupyterlab", "notebook": "notebook", "voila": "voila"}[kind]
    command = [sys.executable, "-m", module, "--no-browser", f"--ServerApp.port={port}"]
    if kind == "voila":
        return [*command[:-1], f"--port={port}", "--Voila.ip=127.0.0.1", NO_RESTART, str(root)]
    command += ["--allow-root", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"]
    command += [f"--IdentityProvider.token={TOKEN}"]
    application = {"lab": "LabApp", "notebook": "JupyterNotebookApp"}[kind]
    return [*command, f"--{application}.expose_app_in_browser=True"]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _private_environment(home: Path) -> dict[str, str]:
    """Give an environment in which Jupyter has no settings but these."""
    names = ("CONFIG", "DATA", "RUNTIME")
    private = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in names}
    settings = home / "config/lab/user-settings/@jupyterlab"
    for file, text in {
        # Otherwise what is not in view is not in the page.
        "notebook-extension/tracker": '{"windowingMode": "none"}',
        "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    }.items():
        path = settings / f"{file}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # On a slow machine, bars of progress would be among what cells have to complain about.
    return {**os.environ, **private, "TQDM_DISABLE": "1"}


@contextmanager
def serve(kind: str, home: Path, root: Path) -> Iterator[Site]:
    """Serve notebooks; at the end everything is over that grew from it.

    Parameters
    ----------
    kind
        ``lab``, ``notebook`` or ``voila``.
    home
        A directory for the server's own files.
    root
        Where the notebooks are.
    """
    port = _free_port()
    log = home / f"{kind}.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            _command(kind, port, root),
            cwd=root,
            env=_private_environment(home),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    line = Line(port)
    try:
        _wait_for(server, f"http://127.0.0.1:{port}/" + ("api" if kind != "voila" else ""), log)
        line.begin()
        yield Site(kind, line, server.pid)
    finally:
        family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        server.wait(60)
        _, left = psutil.wait_procs(family, timeout=60)
        for process in left:
            process.kill()
        if line.is_alive():
            line.close()
    assert left == []


def _wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except OSError:
            # A pause that costs nothing: it lasts as long as a process needs to say so.
            psutil.wait_procs([psutil.Process(server.pid)], timeout=0.2)
    pytest.fail(f"the server ended: {log.read_text()}")


class Browser:
    """Chromium with pages that can reach nothing but a site; what they try else is kept.

    Attributes
    ----------
    site
        The server.
    refused
        Addresses that were asked for, and are not the site's.
    """

    def __init__(self, browser: Any, site: Site) -> None:
        self._browser = browser
        self.site = site
        self.refused: list[str] = []

    def new_page(self) -> Any:
        """Open an empty page that shares nothing with others."""
        page = self._browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
        page.route(lambda address: not self._allowed(address), self._refuse)
        return page

    def open(self, notebook: str, throttle: int = 1) -> Any:
        """Open a notebook in a page of its own, and wait until it can be run."""
        page = self.new_page()
        page.set_default_timeout(PATIENCE_MS * (4 if throttle > 1 else 1))
        if throttle > 1:
            session = page.context.new_cdp_session(page)
            session.send("Emulation.setCPUThrottlingRate", {"rate": throttle})
        page.goto(self.site.address(notebook), wait_until="commit")
        if self.site.kind != "voila":
            page.wait_for_function(IDLE)
        return page

    def save(self, page: Any) -> None:
        """Save a notebook with its outputs."""
        page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")

    def close_pages(self) -> None:
        """Close all pages; what they ask for while they close counts no more."""
        for context in self._browser.contexts:
            context.close()

    def check(self) -> None:
        """Fail if a page has asked for anything beyond the site."""
        assert self.refused == [], self.refused

    def run_all(self, page: Any) -> None:
        """Run all cells, and wait until they have been sent; Voilà does it by itself."""
        if self.site.kind != "voila":
            page.evaluate(f"() => void {RUN_ALL}")

    def _allowed(self, address: str) -> bool:
        return address.startswith((self.site.url, "data:", "blob:"))

    def _refuse(self, route: Any) -> None:
        if not (self.site.kind == "voila" and ICONS in route.request.url):
            self.refused.append(route.request.url)
        route.abort()


@contextmanager
def chromium(site: Site) -> Iterator[Browser]:
    """Start Chromium; it is a failure if a page has asked for anything beyond the site."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        started = Browser(launched, site)
        yield started
        launched.close()
    started.check()


def write_notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "name": "python3"}
    nbformat.write(notebook, path)
