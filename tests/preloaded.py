"""`retfound` in processes that need not import its libraries: forked from one that has them.

    subprocess.run([*preloaded.retfound(), "pretrain", ...])

Importing torch, timm and DeepSpeed takes longer than most of what tests let a command do. What a user starts is
tested where it is the object: the entry point, torchrun, Slurm.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests import ROOT

LIBRARIES = ("torch", "timm", "deepspeed", "s3fs", "matplotlib.figure")
COMMANDS = (
    "retfound_dist.train.pretrain",
    "retfound_dist.evaluate.commands.compare",
    "retfound_dist.evaluate.commands.evaluate",
    "retfound_dist.prediction.predict_command",
    "shards.commands",
)


@cache
def retfound() -> tuple[str, ...]:
    """What to put in place of `python -m retfound_dist`. The first call starts the process that is forked."""
    folder = Path(tempfile.mkdtemp(prefix="preloaded"))
    address = folder / "socket"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.preloaded", str(address)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout
    while (line := server.stdout.readline()) != b"ready\n":  # DeepSpeed prints on import
        assert line, "the process that is to be forked has ended"
    atexit.register(_end, server, folder)
    return sys.executable, "-SE", str(ROOT / "tests" / "preloaded_client.py"), str(address)


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.kill()
    server.wait()
    for path in (folder / "socket", folder):
        path.unlink() if path.is_socket() else path.rmdir()


def serve(address: str) -> None:
    """Fork a process for each connection, until the parent is gone."""
    for name in (*LIBRARIES, *COMMANDS):
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener.fileno(), sys.stdin.fileno()], [], [])
            if sys.stdin.fileno() in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _handle(connection)
            connection.close()


def _handle(connection: socket.socket) -> None:
    """Start the command, and end it where the client is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    size, data = int.from_bytes(head, "big"), b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    child = os.fork()
    if child == 0:
        connection.close()
        _run(json.loads(data), files)
    for number in files:
        os.close(number)
    connection.sendall(b"%d\n" % child)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, connection.fileno()], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with connection:
        with suppress(OSError):  # the client is gone
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _parent_of(process: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return 1


def _run(request: dict[str, Any], files: list[int]) -> None:
    """This process as the command."""
    for number, target in zip(files, (0, 1, 2), strict=True):
        os.dup2(number, target)
        os.close(number)
    arguments = request["arguments"]
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    # Ranks of a node know each other, and the end of torchrun, by their parent.
    os.getppid = partial(_parent_of, request["process"])
    sys.argv = ["retfound", *arguments]
    from retfound_dist.cli import main

    code = 1
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
