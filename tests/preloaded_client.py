"""Runs `retfound` in a process that has its libraries already (tests/preloaded.py).

Started as `python -SE tests/preloaded_client.py SOCKET ARGUMENTS`. It has the output, the exit code and the end
by a signal of that process, passes signals on, and when it is killed that process is killed too.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGCONT)


def main() -> None:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.connect(sys.argv[1])
    request = {
        "arguments": sys.argv[2:],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "process": os.getpid(),
    }
    head = json.dumps(request).encode()
    socket.send_fds(server, [len(head).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(head)
    answers = server.makefile("rb")
    child = int(answers.readline())
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: pass_on(child, number))
    code = int(answers.readline() or b"-9")
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def pass_on(child: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, number)


main()
