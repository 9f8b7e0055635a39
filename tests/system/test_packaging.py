"""The wheel has all that a user needs, and works outside of the clone for whoever is not root."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path
from typing import Any

import nbformat
import pytest

from colobench.cli import lab
from colobench.cli.main import main
from colobench.errors import LocalError
from colobench.kernels.warmup import directory, kernels_in
from colobench.lab import material
from colobench.lab.material import INDEX, MATERIAL, copy_material, files_of
from colobench.node.kernels import all_kernel_modules
from places import CLONE

TOKEN = "token"
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
NOBODY = "nobody" if os.geteuid() == 0 else None
#: Says where the kernels of each module are kept.
KEPT = """
import json
from colobench.kernels.warmup import directory, kernels_in
from colobench.node.kernels import all_kernel_modules
kernels = kernels_in(all_kernel_modules())
print(json.dumps({each.py_func.__module__: str(directory(each)) for each in kernels}))
"""


def texts(root: Path) -> Iterator[tuple[Path, str]]:
    """Give all that may have links: documents, and the text of notebooks."""
    for path in files_of(root):
        if path.suffix == ".md":
            yield path, path.read_text("utf-8")
        elif path.suffix == ".ipynb":
            cells = nbformat.read(path, as_version=4).cells
            yield path, "\n".join(each.source for each in cells if each.cell_type == "markdown")


def anchors(path: Path) -> set[str]:
    """Give what headings of a document can be linked to, as GitHub and JupyterLab name them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M)
    plain = (re.sub(r"[^\w\- ]", "", each.lower()) for each in headings)
    return {each.replace(" ", "-") for each in plain}


def assert_links_lead_somewhere(root: Path) -> None:
    found = 0
    for path, text in texts(root):
        for link in LINK.findall(text):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.is_relative_to(root), f"{path}: {link} leads out of what is served"
            assert target.exists(), f"{path}: {link}"
            assert not anchor or anchor in anchors(target), f"{path}: {link}"
            found += 1
    assert found > 20


def test_every_link_of_the_clone_leads_somewhere() -> None:
    assert_links_lead_somewhere(CLONE)


# -- Copies -------------------------------------------------------------------------------------


def test_a_copy_has_all_that_is_linked_to_and_keeps_what_is_there(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    copied = copy_material(directory)
    assert (copied.directory, copied.kept) == (directory, ())
    assert copied.new == len(files_of(CLONE)) == len(files_of(directory))
    assert_links_lead_somewhere(directory)
    mine = directory / INDEX
    mine.write_text("my notes")
    (directory / "docs/network.md").unlink()
    again = copy_material(directory)
    assert mine.read_text() == "my notes"
    assert (again.new, again.kept) == (1, (INDEX,))
    assert INDEX in str(again)


def test_a_directory_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match=r"expected a directory that can be written, found .*file"):
        copy_material(tmp_path / "file")


def test_an_installation_without_notebooks_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(material, "_PACKAGE", tmp_path / "colobench")
    with pytest.raises(LocalError, match=f"expected {INDEX} in .*; install colobench anew, or"):
        copy_material(tmp_path / "copy")


@pytest.mark.parametrize("arguments", [[], ["--directory", "copy"]])
def test_lab_serves_the_directory_that_links_lead_into(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    calls: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lab.os, "execve", lambda *called: calls.append(called))
    main(["lab", *arguments, "--no-browser"])
    [(program, command, environment)] = calls
    assert command[:3] == [program, "-m", "jupyterlab"]
    root = tmp_path / "copy" if arguments else CLONE
    assert f"--ServerApp.root_dir={root}" in command
    assert f"--LabApp.default_url=/lab/tree/{INDEX}" in command
    assert "--no-browser" in command
    settings = Path(environment["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0])
    overrides = json.loads((settings / "labconfig/default_setting_overrides.json").read_text())
    assert overrides["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


# -- Wheel and sdist ----------------------------------------------------------------------------


def python_for(user: str | None) -> str:
    """Find a Python like this one that a user can run."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys._base_executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):  # type: ignore[attr-defined]
        try:
            done = subprocess.run([path, "-c", ""], user=user, cwd="/", capture_output=True)
        except OSError:
            continue
        if done.returncode == 0:
            return path
    pytest.skip(f"no {name} that {user or 'this user'} can run")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an sdist, and of that the wheel; gives their directory."""
    directory = tmp_path_factory.mktemp("built")
    # Only what git knows: what lies about in a clone is not what others get.
    listed = subprocess.run(
        ["git", "-C", CLONE, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
    )
    clone = directory / "clone"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (CLONE / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CLONE / name, clone / name)
    script = "from hatchling.build import build_sdist; import sys; build_sdist(sys.argv[1])"
    pip(sys.executable, "install", "--target", str(directory / "hatchling"), "hatchling>=1.26")
    environment = os.environ | {"PYTHONPATH": str(directory / "hatchling")}
    subprocess.run(
        [sys.executable, "-c", script, str(directory)], check=True, cwd=clone, env=environment
    )
    [sdist] = directory.glob("*.tar.gz")
    pip(sys.executable, "wheel", "--no-deps", "-w", str(directory), str(sdist))
    return directory


def pip(python: str, *arguments: str) -> None:
    """Run our pip for some Python."""
    command = [sys.executable, "-m", "pip", "--python", python, *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [found] = built.glob("*.whl")
    return found


def test_the_wheel_has_notebooks_and_documents_and_links_of_its_own(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [name] = (each for each in names if each.endswith("/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    for path in files_of(CLONE):
        assert f"{MATERIAL}/{path.relative_to(CLONE)}" in names
    assert not any(each.startswith(("tests/", "notebooks/")) for each in names)
    description = metadata.get_payload()
    assert description.startswith("# colobench")
    assert LINK.findall(description) == []
    for place in re.findall(rf"`({MATERIAL}/[^`]+)`", description):
        assert any(each == place or each.startswith(f"{place}/") for each in names), place
    assert f"{MATERIAL}/docs/split-brain.md" in description


def test_each_python_that_is_promised_has_a_classifier() -> None:
    classifiers = importlib.metadata.metadata("colobench").get_all("Classifier") or []
    for minor in (11, 12, 13, 14):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers


class Installed:
    """The wheel in a virtual environment far from the clone, and a user's home directory."""

    def __init__(self, root: Path, python: str) -> None:
        self.root, self.home = root, root / "home"
        self.environment = {
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "PATH": f"{root / 'venv/bin'}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TQDM_DISABLE": "1",
        }
        self.python = python

    def install(self, wheel: Path) -> None:
        venv = self.root / "venv"
        subprocess.run([self.python, "-m", "venv", "--without-pip", venv], check=True)
        pip(str(venv / "bin/python"), "install", "--no-deps", str(wheel))
        # What it depends on is here already: installing it anew would take minutes.
        [packages] = venv.glob("lib/python*/site-packages")
        ours = Path(importlib.metadata.distribution("numpy").locate_file("")).resolve()
        (packages / "dependencies.pth").write_text(f"{ours}\n")
        self.home.mkdir()
        if NOBODY is not None:
            shutil.chown(self.home, NOBODY)

    def take_kernels(self) -> None:
        """Take the kernels that this clone has compiled: the sources are the same."""
        ours = {
            each.py_func.__module__: directory(each) for each in kernels_in(all_kernel_modules())
        }
        for module, theirs in json.loads(self.run("python", "-c", KEPT)).items():
            for entry in (ours[module] or Path()).glob(f"{module.rpartition('.')[2]}.*.nb?"):
                copied = shutil.copy(entry, theirs)
                if NOBODY is not None:
                    shutil.chown(copied, NOBODY)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.root / "venv/bin" / command[0]), *command[1:]],
            user=NOBODY,
            group=None if NOBODY is None else pwd.getpwnam(NOBODY).pw_gid,
            extra_groups=None if NOBODY is None else [],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            text=True,
            **options,
        )

    def run(self, *command: str) -> str:
        with self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            output, errors = process.communicate()
        assert process.returncode == 0, errors
        return output


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Installed]:
    python = python_for(NOBODY)
    # Others cannot get into pytest's own directory, nor into root's.
    with tempfile.TemporaryDirectory(prefix="colobench-wheel-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        made = Installed(root, python)
        made.install(wheel)
        packages = str(Path(importlib.metadata.distribution("numpy").locate_file("")))
        done = subprocess.run(["ls", packages], user=NOBODY, cwd="/", capture_output=True)
        if done.returncode:
            pytest.skip(f"{NOBODY} cannot read {packages}")
        made.take_kernels()
        yield made


def test_an_installed_wheel_is_not_the_clone(installed: Installed) -> None:
    where = installed.run("python", "-c", "import colobench; print(colobench.__file__)")
    assert where.startswith(str(installed.root))
    assert "colobench 0" in installed.run("colobench", "--version")


@pytest.mark.timeout(900)
def test_an_installed_wheel_has_its_demonstration(installed: Installed) -> None:
    found = installed.run("colobench", "demo", "--ram", "4M", "--checkpoints", "3", "--json")
    assert json.loads(found)["verified"] is True


def test_lab_of_an_installed_wheel_serves_notebooks_and_what_they_link_to(
    installed: Installed,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--no-browser", f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    options += ["--ServerApp.port_retries=0"]
    log = installed.home / "lab.log"
    with (
        log.open("w") as written,
        installed.start("colobench", "lab", *options, stdout=written, stderr=written) as lab,
    ):
        try:
            index = ask(f"http://127.0.0.1:{port}/api/contents/{INDEX}", lab)
            assert json.loads(index)["type"] == "notebook"
            page = ask(f"http://127.0.0.1:{port}/lab/tree/{INDEX}", lab)
            assert b"jupyter" in page.lower()
            document = ask(f"http://127.0.0.1:{port}/files/docs/split-brain.md", lab)
            assert document == (CLONE / "docs/split-brain.md").read_bytes()
        finally:
            lab.send_signal(signal.SIGTERM)
            lab.wait()
    copy = installed.home / material.DIRECTORY
    assert f"notebooks and documents are in {copy}" in log.read_text()
    assert_links_lead_somewhere(copy)


def ask(url: str, lab: subprocess.Popen[str]) -> bytes:
    """Ask the server as soon as it listens."""
    request = urllib.request.Request(url, headers={"Authorization": f"token {TOKEN}"})
    while True:
        try:
            with urllib.request.urlopen(request) as answer:
                data: bytes = answer.read()
                return data
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert lab.poll() is None, "JupyterLab ended"
            time.sleep(0.1)
