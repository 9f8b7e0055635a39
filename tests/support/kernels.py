"""Jupyter's kernels without a page, for tests."""

from __future__ import annotations

from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

PATIENCE = 120


class Kernel:
    """A kernel, and what its cells show."""

    def __init__(self) -> None:
        manager, client = start_new_kernel(startup_timeout=PATIENCE)
        self.manager: KernelManager = manager
        self.client: BlockingKernelClient = client

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()
        self.manager.cleanup_resources()

    def run(self, code: str) -> tuple[str, list[str]]:
        """Run a cell; gives what it printed, and its error."""
        asked = self.client.execute(code)
        printed, error = "", []
        while True:
            message = self.next_message()
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed += content["text"]
            elif kind == "error":
                error = content["traceback"]
            elif kind == "status" and content["execution_state"] == "idle":
                return printed, error

    def next_message(self) -> dict[str, Any]:
        """Give the next message that all pages get."""
        return self.client.get_iopub_msg(timeout=PATIENCE)

    def send_to_widget(self, comm: str, content: Any, subshell: str | None = None) -> None:
        """Send a widget what its part in a page would say, from a subshell as JupyterLab does."""
        data = {"method": "custom", "content": content}
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)

    def has_subshells(self) -> bool:
        info = self.client.kernel_info(reply=True, timeout=PATIENCE)["content"]
        return "kernel subshells" in info.get("supported_features", [])

    def begin_subshell(self) -> str:
        return str(self._control("create_subshell_request", {})["subshell_id"])

    def end_subshell(self, subshell: str) -> None:
        self._control("delete_subshell_request", {"subshell_id": subshell})

    def _control(self, kind: str, content: dict[str, str]) -> dict[str, Any]:
        self.client.control_channel.send(self.client.session.msg(kind, content))
        reply = self.client.get_control_msg(timeout=PATIENCE)["content"]
        assert reply["status"] == "ok", reply
        return reply
