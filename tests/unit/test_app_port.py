"""``colobench app`` prints the URL of its own server alone: a port in use is refused."""

from __future__ import annotations

import socket
from argparse import Namespace
from pathlib import Path

import pytest

from colobench.cli import app
from colobench.errors import LocalError


def test_a_port_in_use_is_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: True)
    monkeypatch.setattr(app.subprocess, "Popen", lambda *_, **__: pytest.fail("it was started"))
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = used.getsockname()[1]
        with pytest.raises(LocalError, match=rf"port: expected a free one .*, found {port}: Addr"):
            app.run(Namespace(port=port, open=False, further=[]))


def test_the_server_tries_no_other_port():
    command = app._command(Path("cockpit.ipynb"), 8000, "token", open=False)
    assert "--Voila.port_retries=0" in command
