"""Pages that come later are heard, whatever subshells of earlier pages have ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernels import Kernel

MAKE = """
from colobench.ui.base.feed import Feed
feed = Feed()
print(feed.comm.comm_id)
"""


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    try:
        if not kernel.has_subshells():
            pytest.skip("this version of ipykernel has no subshells")
        yield kernel
    finally:
        kernel.close()


def wait_until_heard(kernel: Kernel, page: str) -> None:
    """Wait until the feed says that the kernel has heard this page."""
    # A ping is answered at once; otherwise there is a message each second.
    for _ in range(30):
        state = kernel.next_message()["content"].get("data", {}).get("state", {})
        if page in state.get("contact", {}).get("heard", {}):
            return
    pytest.fail(f"the kernel does not hear the page {page!r}")


@pytest.mark.parametrize("subshells", [True, False], ids=["own-subshell", "no-subshell"])
def test_a_page_is_heard_after_the_subshell_of_an_earlier_one_has_ended(
    kernel: Kernel, subshells: bool
) -> None:
    comm = kernel.run(MAKE)[0].strip()
    first = kernel.begin_subshell()
    kernel.send_to_widget(comm, {"page": "first", "ping": 1}, first)
    wait_until_heard(kernel, "first")
    kernel.end_subshell(first)
    second = kernel.begin_subshell() if subshells else None
    kernel.send_to_widget(comm, {"page": "second", "ping": 1}, second)
    wait_until_heard(kernel, "second")
