"""The doctor tells the truth about the machine, also when a part of it is broken."""

import json
import math
import os
import platform
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from colobench import doctor
from colobench.memory import userfault

CGROUP2 = "31 23 0:28 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
CGROUP1 = "34 31 0:30 {root} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"


def machine(root, membership, mounts, files):
    """Lay out a /proc and /sys/fs/cgroup under `root`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("\n".join(membership))
    (root / "proc/self/mountinfo").write_text("\n".join(mounts))
    for path, text in files.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def program(directory, name, script):
    """Put a shell script onto a directory that is a PATH."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def python(script, **environment):
    """Run a script in a Python of its own and give what it printed."""
    command = [sys.executable, "-B", "-c", script]
    environment = {**os.environ, **environment}
    return subprocess.check_output(command, text=True, env=environment).strip()


def test_every_check_is_named_once_and_never_raises():
    findings = list(doctor.examine())
    assert [finding.name for finding in findings] == list(doctor.CHECKS)
    assert all(finding.detail and "\n" not in finding.detail for finding in findings)


def test_names_are_announced_before_their_check_runs():
    announced = []
    first = next(doctor.examine(announced.append))
    assert announced == [first.name]


def test_rendering_gives_a_line_each_and_the_same_facts_as_json():
    findings = [
        doctor.Finding("KVM", False, "no such device"),
        doctor.Finding("QEMU", True, "7.2"),
        doctor.Finding("AVX-512", None, "could not be tested"),
    ]
    lines = doctor.render(findings).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["KVM", "no"],
        ["QEMU", "yes"],
        ["AVX-512", "?"],
    ]
    assert json.loads(doctor.render_json(findings)) == {
        "KVM": {"available": False, "detail": "no such device"},
        "QEMU": {"available": True, "detail": "7.2"},
        "AVX-512": {"available": None, "detail": "could not be tested"},
    }


def test_a_check_that_fails_unexpectedly_says_that_it_could_not_be_tested(monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", {})

    @doctor.check("flux")
    def check_flux():
        raise ZeroDivisionError("no flux")

    assert check_flux() == doctor.Finding(
        "flux", None, "could not be tested: ZeroDivisionError('no flux')"
    )


@pytest.mark.parametrize(
    ("files", "cores", "limit"),
    [
        ({}, math.inf, math.inf),
        ({"a/b/cpu.max": "max 100000", "a/b/memory.max": "max"}, math.inf, math.inf),
        ({"a/b/cpu.max": "150000 100000", "a/b/memory.max": "2147483648"}, 1.5, 2**31),
        ({"a/cpu.max": "100000 100000", "a/memory.max": "4096"}, 1, 4096),
        ({"a/b/cpu.max": "200000 100000", "a/cpu.max": "50000 100000"}, 0.5, math.inf),
    ],
)
def test_the_tightest_limit_of_the_version_2_hierarchy_counts(tmp_path, files, cores, limit):
    root = machine(tmp_path, ["0::/a/b"], [CGROUP2.format(root="/")], files)
    assert doctor.cpu_quota(root) == cores
    assert doctor.memory_limit(root) == limit


def test_a_container_that_sees_only_its_own_cgroup_is_limited_by_it(tmp_path):
    files = {"cpu.max": "100000 100000", "memory.max": "2147483648"}
    for number, membership in enumerate(["0::/pod/x", "0::/", "0::/../../other"]):
        root = machine(tmp_path / str(number), [membership], [CGROUP2.format(root="/pod/x")], files)
        assert (doctor.cpu_quota(root), doctor.memory_limit(root)) == (1, 2**31)


def test_version_1_limits_are_read_and_its_no_limit_is_known(tmp_path):
    mounts = [CGROUP1.format(root="/", name=name) for name in ("cpu", "memory")]
    files = {
        "cpu/x/cpu.cfs_quota_us": "250000\n",
        "cpu/x/cpu.cfs_period_us": "100000\n",
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    root = machine(tmp_path, ["1:cpu,cpuacct:/x", "4:memory:/y"], mounts, files)
    assert (doctor.cpu_quota(root), doctor.memory_limit(root)) == (2.5, math.inf)


def test_too_little_memory_for_the_demo_is_said(monkeypatch):
    monkeypatch.setattr(doctor, "usable_memory", lambda: 256 << 20)
    finding = doctor.check_memory()
    assert finding.available is False
    assert "0.2 GiB" in finding.detail
    assert "demo takes 1.0 GiB" in finding.detail


def test_cores_never_exceed_the_affinity_mask():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        finding = doctor.check_cores()
    finally:
        os.sched_setaffinity(0, allowed)
    assert float(finding.detail.split()[0]) <= 1
    assert "1 allowed" in finding.detail


def test_kvm_is_available_only_if_the_device_opens_for_us():
    finding = doctor.check_kvm()
    assert finding.available is not None
    assert finding.available == finding.detail.startswith("created a VM")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert finding.available is False
        assert "/dev/kvm" in finding.detail


def linux_version():
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])


def test_userfaultfd_agrees_with_the_kernel_version():
    finding = doctor.check_userfaultfd()
    assert finding.available is not None
    if finding.available:
        assert linux_version() >= (6, 7), "PAGEMAP_SCAN came with Linux 6.7"
    else:
        assert "userfaultfd" in finding.detail or "PAGEMAP_SCAN" in finding.detail


def test_userfaultfd_needs_no_privilege():
    if os.geteuid():
        pytest.skip("needs root, to give it up")
    script = """
import ctypes, os
from colobench import doctor
doctor.check_userfaultfd()  # What it imports may not be readable for everybody.
os.setgroups([]), os.setgid(65534), os.setuid(65534)
PR_SET_DUMPABLE = 4
ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)
print(doctor.check_userfaultfd())
"""
    assert python(script) == str(doctor.check_userfaultfd())


def test_pages_reported_in_excess_make_tracking_unavailable(monkeypatch):
    if not doctor.check_userfaultfd().available:
        pytest.skip("no userfaultfd + PAGEMAP_SCAN here")
    collect = userfault.UserFault._collect

    def exaggerate(tracker, into):
        collect(tracker, into)
        into[0] |= np.uint64(1)

    monkeypatch.setattr(userfault.UserFault, "_collect", exaggerate)
    finding = doctor.check_userfaultfd()
    assert finding.available is False
    assert "expected written pages [[], [5, 98]" in finding.detail
    assert "found [[0], [0, 5, 98]" in finding.detail


def test_avx512_agrees_with_the_processor_flags():
    flags = Path("/proc/cpuinfo").read_text().split()
    assert doctor.check_avx512().available == ("avx512f" in flags)


def test_an_illegal_instruction_makes_avx512_unavailable(monkeypatch):
    if platform.machine() != "x86_64":
        pytest.skip("x86-64 code")
    undefined_instruction = "0f0b"
    monkeypatch.setattr(
        doctor,
        "AVX512_PROGRAM",
        doctor.AVX512_PROGRAM.replace(doctor.AVX512_CODE, undefined_instruction),
    )
    finding = doctor.check_avx512()
    assert finding.available is False
    assert "illegal instruction" in finding.detail


@pytest.mark.parametrize("name", ["QEMU", "Chromium"])
def test_a_missing_program_is_named(monkeypatch, tmp_path, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = doctor.CHECKS[name]()
    assert finding.available is False
    assert "on PATH" in finding.detail


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'cannot load libcapstone' >&2; exit 127", "status 127: cannot load libcapstone"),
        ("echo hello", "found 'hello"),
        ("kill -SEGV $$", "status -11"),
    ],
)
def test_a_broken_qemu_is_not_available_and_the_reason_is_given(
    monkeypatch, tmp_path, script, reason
):
    path = program(tmp_path, "qemu-system-x86_64", script)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = doctor.check_qemu()
    assert finding.available is False
    assert str(path) in finding.detail
    assert reason in finding.detail


def test_a_program_that_hangs_is_ended_with_its_children(monkeypatch, tmp_path):
    fifo = tmp_path / "held by each process"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    script = f"exec 3>'{fifo}'; echo started >&3; sleep 1000 & wait"
    program(tmp_path, "qemu-system-x86_64", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(doctor, "PROGRAM_TIMEOUT", 3.0)
    finding = doctor.check_qemu()
    assert finding.available is False
    assert "timed out" in finding.detail
    os.set_blocking(reader, True)
    with open(reader) as end_of_all_writers:
        assert end_of_all_writers.read() == "started\n"


def test_a_chromium_that_runs_no_scripts_is_not_available(monkeypatch, tmp_path):
    program(tmp_path, "chromium", "echo '<html><body></body></html>'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    finding = doctor.check_chromium()
    assert finding.available is False
    assert "expected a page that says 42" in finding.detail


@pytest.mark.browser
def test_chromium_leaves_no_profile_behind(monkeypatch, tmp_path):
    if not shutil.which("chromium"):
        pytest.skip("no chromium on PATH")
    monkeypatch.setattr(doctor.tempfile, "tempdir", str(tmp_path))
    # A browser's first start on a busy machine takes long.
    monkeypatch.setattr(doctor, "PROGRAM_TIMEOUT", 120.0)
    assert doctor.check_chromium().available
    assert list(tmp_path.iterdir()) == []
