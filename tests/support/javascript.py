"""Views' own modules in Node.js, which Playwright brings along: functions without a page."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import playwright

from colobench.ui.base.feed import read_module

NODE = Path(playwright.__file__).parent / "driver" / "node"
#: Megabytes after which a loop that never ends has filled its array.
HEAP = 64


def evaluate(expression: str, *names: str) -> Any:
    """Evaluate an expression after the modules of these names; gives a value of JSON."""
    modules = read_module(*names).replace("export default", "const view =")
    script = (
        f"{modules}\nconst found = JSON.stringify(await ({expression}));\n"
        "process.stdout.write(found, () => process.exit());"
    )
    done = subprocess.run(
        [NODE, f"--max-old-space-size={HEAP}", "--input-type=module", "-"],
        input=script,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
