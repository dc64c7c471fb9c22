"""Several hosts on this machine, each with its own network, name and scratch disk, and S3 between them."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests import ROOT
from tests.cluster.real_parts import INFRA, clean_environment, need, need_root, run, wait_until
from tests.cluster.real_s3 import S3, new_credentials, rclone_environment, with_new_bucket

SCRIPT = INFRA / "hosts.sh"


@dataclass(frozen=True)
class Hosts:
    """Hosts node1, node2 and so on; what each printed is in `folder`/nodeI.log."""

    folder: Path
    count: int

    def start(
        self, index: int, *command: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command on a host (1 is the first), in the root of the repository."""
        venv = str(Path(sys.executable).parents[1])
        with (self.folder / f"node{index}.log").open("ab") as log:
            return subprocess.Popen(
                [SCRIPT, "node", self.folder, str(index), *map(str, command)], cwd=ROOT,
                env=clean_environment({"VENV": venv, "RANKS_PER_NODE": "1", "OMP_NUM_THREADS": "1"} | dict(env or {})),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def between(self, *command: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> bool:
        """Run a command on the switch, where the S3 server is; whether it left with 0."""
        return run(SCRIPT, "ctl", self.folder, *command, env=env, check=check).returncode == 0

    def running(self, index: int) -> list[psutil.Process]:
        """What runs on a host, zombies left out."""
        found = []
        for pid in run(SCRIPT, "pids", self.folder, str(index)).stdout.split():
            try:
                process = psutil.Process(int(pid))
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def kill(self, index: int) -> None:
        """kill -9 for all that runs on a host."""
        run(SCRIPT, "kill", self.folder, str(index))
        wait_until(lambda: not self.running(index), 10, f"node{index} is dead")

    def cut(self, index: int, mended: bool = False) -> None:
        """Cut a host's link to the others at the switch; no connection is closed. Or mend it."""
        self.between("ip", "link", "set", f"v{index}", "up" if mended else "down")

    def idle(self) -> bool:
        """Whether nothing runs on any host."""
        return not any(self.running(index + 1) for index in range(self.count))

    def logs(self) -> str:
        """The end of what each host printed."""
        return "\n".join(f"--- {p.name}\n{p.read_text()[-3000:]}" for p in sorted(self.folder.glob("*.log")))

    @contextmanager
    def s3(self) -> Iterator[S3]:
        """rclone's S3 server between the hosts, with a bucket that is also the folder `data`/BUCKET."""
        need("rclone")
        server = new_credentials("http://10.99.0.254:19000")
        data = self.folder / "data"
        data.mkdir()
        env = rclone_environment(server)
        program = shutil.which("rclone", path=env["PATH"]) or "rclone"
        serve = [program, "serve", "s3", "--addr", "10.99.0.254:19000", "--vfs-cache-mode", "off", str(data)]
        with (self.folder / "rclone.log").open("ab") as log:
            process = subprocess.Popen(
                [SCRIPT, "ctl", self.folder, *serve],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            probe = "exec 3<>/dev/tcp/10.99.0.254/19000"
            wait_until(lambda: self.between("bash", "-c", probe, check=False), 20, "rclone serves S3")
            yield with_new_bucket(server, self.between)
        finally:
            process.kill()
            process.wait(10)


@contextmanager
def hosts(folder: Path, count: int = 3) -> Iterator[Hosts]:
    """So many hosts; ready at once."""
    need("ip", "nsenter", "unshare")
    need_root()
    folder.mkdir(parents=True)
    try:
        run(SCRIPT, "up", folder, env={"NAME": "rh" + secrets.token_hex(3), "NODES": str(count)})
        yield Hosts(folder, count)
    finally:
        run(SCRIPT, "down", folder, check=False)
