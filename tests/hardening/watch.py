"""A worker that is watched: its time, its memory, what it prints, and what is opened beside its file (Linux)."""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.hardening.cases import Case

ROOT = Path(__file__).parents[2]
MIB = 2**20
IN_OPEN, IN_NONBLOCK = 0x20, 0o4000
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Limits:
    """What a case may take.

    Attributes:
        timeout_seconds: Time limit set in the worker, as ``--timeout`` sets it.
        cpu_seconds: Processor time of a case; more than the time limit, which is looked at between steps.
        wall_seconds: Time of a case, waiting included.
        growth_mib: Resident memory above that before the case.
    """

    timeout_seconds: float = 8.0
    cpu_seconds: float = 30.0
    wall_seconds: float = 90.0
    growth_mib: int = 2048


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        end: ``answered``, ``error``, or of a violation its kind.
        detail: Class and line of an error, or what happened.
        code: Exit code of the error's class.
        seconds: It took.
        growth_mib: Peak of resident memory, above that before.
        warnings: Of an answered one.
    """

    end: str
    detail: str = ""
    code: int = 0
    seconds: float = 0.0
    growth_mib: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def bad(self) -> bool:
        """Whether this may never happen."""
        return self.end not in ("answered", "error")


class Opens:
    """Names in one folder that anyone opens, from the kernel: it misses no library and no thread."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(IN_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def watch(self, folder: Path) -> int:
        """Begin; returns what ``names`` needs."""
        return self._libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_OPEN)

    def names(self, watch: int) -> set[bytes]:
        """End, and the names that were opened."""
        self._libc.inotify_rm_watch(self._fd, watch)
        found, data = set(), b""
        try:
            while chunk := os.read(self._fd, 1 << 16):
                data += chunk
        except BlockingIOError:
            pass
        while data:
            _, _, _, length = struct.unpack_from("iIII", data)
            found.add(data[16 : 16 + length].rstrip(b"\0"))
            data = data[16 + length :]
        return found - {b""}

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


class Worker:
    """A process of ``tests.hardening.worker``, started when it is needed and again after its death."""

    def __init__(self, limits: Limits, server: socket.socket, prefix: tuple[str, ...] = ()) -> None:
        self.limits, self._server, self._prefix = limits, server, prefix
        self._process: subprocess.Popen[bytes] | None = None
        self._opens = Opens()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the exit

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._opens.close()
        self._printed.close()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        ours, theirs = os.pipe()
        command = [sys.executable, "-m", "tests.hardening.worker", str(theirs), str(self.limits.timeout_seconds)]
        self._process = subprocess.Popen(
            [*self._prefix, *command],
            stdin=subprocess.PIPE,
            stdout=self._printed,
            stderr=self._printed,
            pass_fds=[theirs],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        os.close(theirs)
        self._answers = os.fdopen(ours, "rb")
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._answers.close()
            self._process = None

    def run(self, case: Case, folder: Path) -> Outcome:
        """Have a case run, and watch it."""
        process = self._start()
        if self._new_output():
            return Outcome("worker", self._text)
        watch = self._opens.watch(folder)
        begin = time.monotonic()
        base, cpu = self._usage(process.pid)
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        request = {"path": case.path, "options": case.options, "folder": str(folder)}
        stdin = process.stdin
        assert stdin is not None
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        end = ""
        while not select.select([self._answers], [], [], POLL_SECONDS)[0]:
            grown, used = self._usage(process.pid)
            if grown - base > self.limits.growth_mib:
                end = "memory"
            elif used - cpu > self.limits.cpu_seconds or time.monotonic() - begin > self.limits.wall_seconds:
                end = "hang"
            if end:
                break
        seconds = time.monotonic() - begin
        if end:
            outcome = Outcome(end, f"{grown - base:.0f} MiB, {used - cpu:.0f} s of processor time")
            self._end()
        else:
            outcome = self._outcome(process, self._answers.readline())
        outcome.seconds = seconds
        if self._process is not None and outcome.end != "signal":
            outcome.growth_mib = max(self._peak(process.pid) - base, 0.0)
            if outcome.growth_mib > self.limits.growth_mib and not outcome.bad:
                outcome.end, outcome.detail = "memory", f"{outcome.growth_mib:.0f} MiB; {outcome.detail}"
        self._look(outcome, watch, case)
        return outcome

    def _outcome(self, process: subprocess.Popen[bytes], line: bytes) -> Outcome:
        if not line:
            code = process.wait()
            self._new_output()
            return Outcome("signal" if code < 0 else "died", f"exit {code} {self._text[-1500:]}")
        result: dict[str, Any] = json.loads(line)
        if result["opened"] and result["end"] != "foreign":
            return Outcome("opened", str(result["opened"]))
        if result["end"] == "answered":
            return Outcome("answered", warnings=result["warnings"])
        if result["end"] == "error":
            return Outcome("error", f"{result['class']}: {result['line']}", result["code"])
        return Outcome("foreign", result["line"] + "\n" + result["trace"])

    def _look(self, outcome: Outcome, watch: int, case: Case) -> None:
        """Whether anything was opened, called or printed that should not have been."""
        others = self._opens.names(watch) - {os.fsencode(os.path.basename(case.path))}
        if others:
            outcome.end, outcome.detail = "opened", f"{others} {outcome.detail}"
        try:
            self._server.accept()[0].close()
            outcome.end, outcome.detail = "opened", f"a connection {outcome.detail}"
        except BlockingIOError:
            pass
        if self._new_output() and not outcome.bad:
            outcome.end, outcome.detail = "printed", f"{self._text} {outcome.detail}"

    def _new_output(self) -> bool:
        """Whether the worker printed since last time; what is in ``_text``."""
        self._printed.seek(0)
        self._text = self._printed.read().decode(errors="replace")
        self._printed.seek(0)
        self._printed.truncate()
        return bool(self._text)

    @staticmethod
    def _usage(pid: int) -> tuple[float, float]:
        """Resident MiB, and seconds of processor time."""
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            return 0.0, 0.0
        ticks = os.sysconf("SC_CLK_TCK")
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB, (int(times[11]) + int(times[12])) / ticks

    @staticmethod
    def _peak(pid: int) -> float:
        """Highest resident MiB since it was last reset."""
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return 0.0
