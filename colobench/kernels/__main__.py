"""Helper process that compiles kernels into the cache: `python -m colobench.kernels MODULE...`.

It ends with the process that started it, because its standard input is closed then.
"""

from __future__ import annotations

import os
import sys
import threading

from colobench.kernels.warmup import compile_unclaimed, kernels_in


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    for _ in compile_unclaimed(kernels_in(sys.argv[1:])):
        pass
