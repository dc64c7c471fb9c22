"""`retfound doctor` as a step of a real Slurm job on two nodes."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from tests import ROOT
from tests.cluster.real_slurm import Slurm
from tests.doctor.checkups import CONFIG, settings


def test_two_nodes_are_checked_by_one_srun(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-m", "retfound_dist", "doctor", CONFIG, *settings(tmp_path)]
    script = tmp_path / "doctor.sh"
    output = tmp_path / "checks.json"
    # The nodes of the tests have no GPUs that torch can use.
    script.write_text(
        f"#!/bin/bash\nsrun --ntasks-per-node=1 {shlex.join([*command, 'train.device=cpu'])} "
        f"--minutes 0.2 --json > {output}\n"
    )
    logs = tmp_path / "logs"
    job = slurm.submit("--nodes=2", str(script), logs=logs, cwd=ROOT)
    slurm.wait(job, logs, 400)
    checks = {check["name"]: check for check in json.loads(output.read_text())["checks"]}
    assert "2 x CPU on 2 hosts" in checks["device"]["text"]
    assert "2 ranks on 2 hosts (gloo" in checks["links"]["text"]
    assert {checks[name]["status"] for name in ("device", "links", "step", "checkpoint", "resume")} == {"ok"}
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["measured.json"]
