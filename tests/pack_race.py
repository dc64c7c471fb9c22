"""Several real processes that pack to one URL at one moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

RACE = """
import sys, time
from pathlib import Path
from retfound_dist.config.loading import build
from retfound_dist.errors import RetfoundError
from retfound_dist.config.schema import PackConfig
from shards.pack import pack, plan_pack, pack_planned
source, url, go, seed = sys.argv[1:5]
out = {"url": url, "shard_mb": 0.02, "workers": 1, "seed": int(seed)}
config = build(PackConfig, {"source": {"path": source}, "out": out}, "test")
plan = plan_pack(config)
print("ready", flush=True)
while not Path(go).exists():
    pass
try:
    print(pack_planned(config, plan).recipe["out"]["seed"])
except RetfoundError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def race(source: str, url: str, go: Path, rivals: int, env: Mapping[str, str] | None = None) -> list[int]:
    """Packs of as many configs at once to one URL; gives the seeds of those that did it."""
    logs = [go.with_name(f"stderr_{seed}.txt") for seed in range(rivals)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, source, url, str(go), str(seed)],
            stdout=subprocess.PIPE, stderr=log.open("w"), text=True, env=env,
        )
        for seed, log in enumerate(logs)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    go.touch()
    said = [process.communicate(timeout=120)[0].strip() for process in processes]
    for process, text, log in zip(processes, said, logs, strict=True):
        assert process.returncode in (0, 2), f"{text}\n{log.read_text()}"
        assert process.returncode == 0 or "is being packed by" in text or "holds another shard set" in text
    return [int(text) for process, text in zip(processes, said, strict=True) if process.returncode == 0]
