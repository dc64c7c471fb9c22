"""The stream's processes: they end with their reader, and leave nothing behind."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.stream.stream_inputs import make_set, read_with_shm

pytestmark = pytest.mark.slow

READER = """
import sys
from retfound_dist.stream import open_stream
with open_stream(sys.argv[1], global_batch=8, workers=2, image_size=64) as stream:
    for batch in stream:  # no `if __name__ == "__main__"`: a user's script need not have one
        if batch.step == 3:
            print("reading", flush=True)
"""


def start(tmp_path: Path, code: str = READER, **more: object) -> subprocess.Popen[str]:
    """A script that reads a set with two loader processes."""
    url = make_set(tmp_path, count=40).url
    script = tmp_path / "sample_reader.py"
    script.write_text(code)
    env = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(script), url], env=env, text=True, stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **more,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The process's descendants once it is reading."""
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "reading"
    return psutil.Process(process.pid).children(recursive=True)


def soon(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def shared_memory(of: list[int]) -> set[str]:
    """Names in /dev/shm that these processes have mapped: others may be of a test beside this one."""
    inodes = set()
    for pid in of:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        inodes |= {int(line.split()[4]) for line in maps if " /dev/shm/" in line}
    found = set()
    for entry in os.scandir("/dev/shm"):
        with suppress(FileNotFoundError):
            if entry.inode() in inodes:
                found.add(entry.name)
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_loader_processes_end_with_their_reader(tmp_path: Path, how: signal.Signals) -> None:
    process = start(tmp_path, stderr=subprocess.DEVNULL)
    children = family(process)
    assert len(children) >= 3  # the fork server and two workers at least
    pids = [process.pid, *(child.pid for child in children)]
    made = shared_memory(pids)
    assert made  # the queues' semaphores
    process.send_signal(how)
    process.wait(20)
    assert soon(lambda: not any(child.is_running() for child in children))
    torchs = tuple(f"torch_{pid}_" for pid in pids)
    assert soon(
        lambda: not [name for name in os.listdir("/dev/shm") if name in made or name.startswith(torchs)]
    )


HANDING_OVER = """
import sys, threading
from multiprocessing import get_context, resource_sharer
from multiprocessing.connection import Client
from retfound_dist.stream.worker_processes import WorkerSetup

def child(kind, pipe):
    WorkerSetup()()
    if kind == "fault":
        sys.excepthook(ValueError, ValueError("a real fault"), None)
    else:
        address, key = resource_sharer.DupFd(0)._id
        pipe.send((address, key))
        pipe.recv()

if __name__ == "__main__":
    context = get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=child, args=(sys.argv[1], far))
    process.start()
    if sys.argv[1] == "leaves":
        from multiprocessing import process as current
        address, key = near.recv()
        for _ in range(3):
            Client(address, authkey=current.current_process().authkey).close()
        near.send("end")
    process.join(20)
"""


@pytest.mark.parametrize(("kind", "said"), [("leaves", ""), ("fault", "ValueError: a real fault\n")])
def test_a_reader_that_leaves_while_it_is_handed_a_batch_is_not_reported(
    kind: str, said: str, tmp_path: Path
) -> None:
    script = tmp_path / "tensor_transfer.py"
    script.write_text(HANDING_OVER)
    done = subprocess.run([sys.executable, script, kind], capture_output=True, text=True, timeout=60)
    assert done.stderr == said


def test_ctrl_c_on_a_terminal_ends_all_with_one_traceback(tmp_path: Path) -> None:
    """Every process of the terminal gets the signal; only the reader answers."""
    controller, terminal = pty.openpty()
    process = start(tmp_path, stderr=terminal, stdin=terminal, start_new_session=True)
    os.close(terminal)
    children = family(process)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(20)
    assert process.returncode == -signal.SIGINT
    assert soon(lambda: not any(child.is_running() for child in children))
    os.set_blocking(controller, False)
    said = os.read(controller, 1 << 16).decode()
    assert said.count("Traceback") == 1
    assert "KeyboardInterrupt" in said


DROPPED = """
import sys, psutil
from retfound_dist.stream import open_stream
stream = open_stream(sys.argv[1], global_batch=8, workers=2, image_size=64)
first = [next(iter(stream)).keys for _ in range(3)]
assert first[0] == first[1] == first[2]
iterator = iter(stream)
next(iterator)
del iterator
stream.close()
stream.close()
left = [c for c in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(c.cmdline())]
print("left", len(left), "done")
"""


def test_an_iterator_may_be_dropped_midway_and_begun_again(tmp_path: Path) -> None:
    process = start(tmp_path, DROPPED)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.strip() == "left 0 done"


KILLED = """
import sys, psutil, os
from retfound_dist.errors import DataError
from retfound_dist.stream import open_stream
with open_stream(sys.argv[1], global_batch=8, workers=1, image_size=64) as stream:
    batches = iter(stream)
    next(batches)
    for process in stream._processes:
        psutil.Process(process.pid).kill()
    try:
        for _ in batches:
            pass
    except DataError as error:
        print(error)
"""


def test_a_loader_process_that_is_killed_is_one_clear_line(tmp_path: Path) -> None:
    process = start(tmp_path, KILLED)
    said, _ = process.communicate(timeout=60)
    assert said.startswith("a loader process died")
    assert len(said.strip().splitlines()) == 1


SIGNALLED = """
import os, signal, sys, time
import psutil
from retfound_dist.stream import open_stream
with open_stream(sys.argv[1], global_batch=8, workers=2, image_size=64, stop_step=60) as stream:
    for batch in stream:
        if batch.step == 3:
            mine = psutil.Process().children(recursive=True)
            print("reading", flush=True)
            sys.stdin.readline()
print(batch.step, flush=True)
"""


def test_a_scheduler_that_signals_every_process_does_not_end_the_loaders(tmp_path: Path) -> None:
    reader = start(tmp_path, SIGNALLED, stdin=subprocess.PIPE)
    others = family(reader)
    assert len(others) >= 4  # two loaders, their fork server, the resource tracker
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        for process in others:
            process.send_signal(number)
    said, _ = reader.communicate("go on\n", timeout=60)
    assert said.strip() == "59"
    assert reader.returncode == 0
    assert soon(lambda: not any(p.is_running() for p in others))


def test_a_full_shm_is_named_with_what_to_do(tmp_path: Path) -> None:
    (line,) = read_with_shm(make_set(tmp_path).url, tmp_path, "size=100k,nr_inodes=3")
    assert line.startswith("processes cannot be started: the disk at /dev/shm cannot hold more files")
    assert "data.workers=0" in line
