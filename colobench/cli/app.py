"""``colobench app``: the cockpit alone in a browser, without JupyterLab."""

from __future__ import annotations

import argparse
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from colobench.errors import LocalError, RemoteError
from colobench.fields.checks import check_integer

#: Seconds that the server may take to answer first, and that it has to end.
START_SECONDS, END_SECONDS = 120.0, 20.0
#: Seconds after which the server ends a kernel that does nothing and that no page is connected to.
IDLE_SECONDS, LOOK_SECONDS = 60, 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    words = "port of the loopback network [any free one]"
    parser.add_argument("--port", type=_port, default=0, metavar="PORT", help=words)
    parser.add_argument("--open", action="store_true", help="open it in a browser, too")
    parser.epilog = "Options of voila may follow."


def run(options: argparse.Namespace) -> int:
    """Serve the cockpit until Ctrl-C, and give the server's exit status."""
    from colobench.lab.material import COCKPIT, find_material

    if find_spec("voila") is None:
        raise LocalError("Voilà is not installed: pip install 'colobench[app]'")
    notebook = find_material() / COCKPIT
    port, token = (
        _check_free(options.port) if options.port else _free_port(),
        secrets.token_urlsafe(16),
    )
    url = f"http://127.0.0.1:{port}/?token={token}"
    command = [*_command(notebook, port, token, open=options.open), *options.further]
    # Ctrl-C of a terminal reaches a whole group of processes; this process tells the server.
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_until_it_answers(server, url)
        print(f"the cockpit is at {url}\nCtrl-C ends it, and every pair of it", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        print("\ncolobench app: ending the server, its kernels and their pairs", flush=True)
        return 128 + signal.SIGINT
    finally:
        _end(server)


def _command(notebook: Path, port: int, token: str, *, open: bool) -> list[str]:
    command = [sys.executable, "-m", "voila", str(notebook), f"--port={port}"]
    command += ["--Voila.ip=127.0.0.1", f"--Voila.token={token}"]
    # On another port than the printed one, nobody would find it.
    command += ["--Voila.port_retries=0"]
    command += ["--Voila.log_level=WARN", "--theme=light"]
    # A page that is left leaves a kernel behind, which ends its pairs and is idle then.
    command += [f"--MappingKernelManager.cull_idle_timeout={IDLE_SECONDS}"]
    command += [f"--MappingKernelManager.cull_interval={LOOK_SECONDS}"]
    return command if open else [*command, "--no-browser"]


def _wait_until_it_answers(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    address = url.replace("/?", "/voila/static/favicon.ico?")
    while server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RemoteError(
                    f"expected voila to answer within {START_SECONDS:g} s, found {error}"
                ) from error
            time.sleep(0.1)
    raise RemoteError(f"expected voila to serve, found that it ended, status {server.returncode}")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server, which ends its kernels, with which all processes of theirs end."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _check_free(port: int) -> int:
    with socket.socket() as free:
        # As the server does, which does not wait for the ends of old connections.
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind(("127.0.0.1", port))
        except OSError as error:
            raise LocalError(
                f"port: expected a free one of 127.0.0.1, found {port}: {error.strerror}"
            ) from error
    return port


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _port(text: str) -> int:
    try:
        return check_integer("port", int(text), 1, 65535)
    except (ValueError, LocalError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
