"""``colobench lab``: JupyterLab with the notebooks."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from colobench.errors import LocalError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    words = "copy notebooks and documents to DIRECTORY, keep files that are there, and open them "
    words += "[open those of the clone; without a clone: colobench-notebooks]"
    parser.add_argument("--directory", type=Path, metavar="DIRECTORY", help=words)
    parser.epilog = "Options of jupyter lab may follow."


def run(options: argparse.Namespace) -> int:
    """Become JupyterLab."""
    from colobench.lab.material import DIRECTORY, INDEX, copy_material, served_in_place

    if find_spec("jupyterlab") is None:
        raise LocalError("JupyterLab is not installed: pip install 'colobench[lab]'")
    root = served_in_place() if options.directory is None else None
    if root is None:
        copied = copy_material(options.directory or Path(DIRECTORY))
        print(copied, flush=True)
        root = copied.directory
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    # Notebooks link to files beside their directory, so its parent is served.
    command += [f"--LabApp.default_url=/lab/tree/{INDEX}", *options.further]
    if os.geteuid() == 0:
        # JupyterLab refuses to run as root, the usual user of a container, unless it is told to.
        command.append("--allow-root")
    # A process in between would have to hand on signals: JupyterLab ends its kernels when it gets
    # SIGTERM, and asks its user at Ctrl-C.
    os.execve(sys.executable, command, _environment())


def _environment() -> dict[str, str]:
    """Give an environment in which JupyterLab asks about no news, and looks for no updates."""
    from colobench.lab.material import JUPYTER

    # Directories of the user and of the machine follow, and what they set besides holds.
    directories = [str(JUPYTER), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    return {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(directories)}
