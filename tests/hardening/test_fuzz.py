"""A few dozen damaged and hostile files; ``python -m tests.hardening.fuzz`` takes as many as there is time for."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys

import pytest

from tests.hardening import fuzz
from tests.hardening.cases import KINDS, Case, make_case
from tests.hardening.refs import Bait
from tests.hardening.seeds import write_seeds
from tests.hardening.watch import Limits, Opens, Worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches by inotify and /proc")
QUICK = tuple(kind for kind in KINDS if kind not in ("sparse", "large"))
TREE = ("strace", "-f", "-qq", "-e", "trace=open,openat,openat2,creat,socket,connect,execve")


@pytest.mark.parametrize("seed", [1, 2])
def test_every_file_is_answered_or_refused(seed):
    tally = fuzz.run(30, seed, kinds=QUICK)
    assert tally.bad == []
    assert sum(sum(counts.values()) for counts in tally.by_kind.values()) == 30


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return write_seeds(tmp_path_factory.mktemp("seeds"))


def test_a_case_is_the_same_each_time(tmp_path, seeds):
    made = []
    for name in ("a", "b"):
        for index in range(40):
            folder = tmp_path / name / str(index)
            folder.mkdir(parents=True)
            case = make_case(folder, 7, index, ("blind", "header", "splice", "suffix"), seeds, Bait(folder, 9))
            made.append((case.kind, case.options, (folder / case.path).read_bytes()))
    assert made[:40] == made[40:]


def strace_works():
    if shutil.which("strace") is None:
        return False
    return subprocess.run([*TREE, "true"], capture_output=True, check=False).returncode == 0


def test_lists_and_references_open_nothing_by_the_kernels_word(tmp_path):
    if not strace_works():
        pytest.skip("strace cannot be had")
    log = tmp_path / "calls"
    tally = fuzz.run(15, 3, kinds=("lists", "references"), prefix=(*TREE, "-o", str(log)))
    assert tally.bad == []
    calls = log.read_text().splitlines()
    assert not [call for call in calls if " socket(" in call or " connect(" in call]
    assert sum(" execve(" in call and "= 0" in call for call in calls) == 1
    opened = [
        call.split('"')[1] for call in calls if "open" in call and call.count('"') >= 2 and "= -1" not in call
    ]
    of_cases = {path for path in opened if "/case-" in path}
    assert of_cases
    assert not [path for path in of_cases if "canary" in path or "inner" in path or "input" in path]


# The watch itself: it must see what may not happen.


@pytest.fixture
def worker():
    limits = Limits(timeout_seconds=1e9, cpu_seconds=1, wall_seconds=30, growth_mib=300)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        with Worker(limits, server) as one:
            yield one


def test_opens_are_seen(tmp_path):
    opens = Opens()
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    watch = opens.watch(tmp_path)
    (tmp_path / "b").read_bytes()
    assert opens.names(watch) == {b"b"}
    opens.close()


def test_another_name_that_is_opened_is_a_violation(tmp_path, worker, seeds):
    (tmp_path / "canary.mp4").write_bytes(seeds["a.mp4"])
    (tmp_path / "link.mp4").symlink_to("canary.mp4")
    assert worker.run(Case("paths", str(tmp_path / "link.mp4"), {}), tmp_path).end == "opened"
    assert worker.run(Case("paths", str(tmp_path / "canary.mp4"), {}), tmp_path).end == "answered"


def test_memory_and_time_are_watched(tmp_path, worker):
    path = tmp_path / "long.wav"
    path.write_bytes(
        b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\xff\xff\xff\x7f"
    )
    with path.open("r+b") as file:
        file.truncate(2**31 - 2)
    outcome = worker.run(Case("sparse", str(path), {}), tmp_path)
    assert outcome.bad
    assert outcome.end in ("memory", "hang")
    # The next one has a process of its own again.
    assert worker.run(Case("paths", str(tmp_path / "none.mp4"), {}), tmp_path).code == 3


def test_exceptions_and_deaths_are_told(tmp_path, worker):
    assert worker.run(Case("paths", str(tmp_path), {"fps": "many"}), tmp_path).end == "foreign"
    process = worker._start()
    process.kill()
    process.wait()
    assert not worker.run(Case("paths", str(tmp_path), {}), tmp_path).bad
