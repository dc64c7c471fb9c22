"""launch/kubernetes: the manifest fits together, and its command is run as two pods on this host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.estimate.loader_processes import needed_processes
from retfound_dist.formats import checkpoint_folder
from tests import ROOT
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL, metrics

MANIFEST = ROOT / "launch/kubernetes/pretrain.yaml"
IMAGE_FOLDER = "/opt/retfound"
START_AGAIN, PERMANENT = 75, 2
"""Exit codes of pod.sh."""


def parts() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The Service, the Job, the Job's pod and the pod's container."""
    service, job = yaml.safe_load_all(MANIFEST.read_text())
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    return service, job, pod, container


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_the_pods_find_pod_0_by_the_name_that_the_service_gives_it() -> None:
    service, job, pod, container = parts()
    name, spec = job["metadata"]["name"], job["spec"]
    assert (service["kind"], job["kind"], spec["completionMode"]) == ("Service", "Job", "Indexed")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert environment(container)["MASTER_ADDR"] == f"{name}-0.{service['metadata']['name']}"
    assert spec["completions"] == spec["parallelism"] == int(environment(container)["NNODES"])


def test_a_pod_that_is_to_start_again_does_so_and_a_lasting_error_ends_the_job() -> None:
    _, job, pod, container = parts()
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy needs it
    preempted, lasting = job["spec"]["podFailurePolicy"]["rules"]
    assert preempted["action"] == "Ignore"
    assert preempted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert lasting["action"] == "FailJob"
    assert lasting["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [PERMANENT],
    }
    assert job["spec"]["backoffLimit"] == 50 * job["spec"]["completions"]


def test_a_pod_has_the_time_to_save_and_the_cpus_for_its_loaders() -> None:
    _, _, pod, container = parts()
    config, _ = load(PretrainConfig, str(ROOT / container["args"][0]), container["args"][1:])
    assert pod["terminationGracePeriodSeconds"] >= config.train.grace_s + 30
    requests = container["resources"]["requests"]
    assert requests == container["resources"]["limits"]
    assert int(requests["cpu"]) >= int(requests["nvidia.com/gpu"]) * (1 + needed_processes(config.model))
    assert config.data.cache_dir.startswith(environment(container)["TMPDIR"])


def test_a_pod_is_not_root_and_no_secret_stands_in_the_manifest() -> None:
    _, _, pod, container = parts()
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert not [name for name in environment(container) if name.startswith("AWS")]
    assert [list(source) for source in container["envFrom"]] == [["secretRef"]]


def test_shared_memory_and_scratch_are_mounted_and_the_command_is_in_the_image() -> None:
    _, _, pod, container = parts()
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts["/dev/shm"]["medium"] == "Memory"
    assert environment(container)["TMPDIR"] in mounts
    [command] = container["command"]
    script = ROOT / Path(command).relative_to(IMAGE_FOLDER)
    assert os.access(script, os.X_OK)
    recipe = (ROOT / "launch/Containerfile").read_text()
    assert f"WORKDIR {IMAGE_FOLDER}" in recipe
    assert f"--uid {pod['securityContext']['runAsUser']} " in recipe


class Pods:
    """The manifest's command with what Kubernetes would set, as two processes that meet on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        self.shards = make_set(folder, count=40).url
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *settings: str) -> None:
        _, job, _, container = parts()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = [word.replace(IMAGE_FOLDER, str(ROOT)) for word in container["command"]]
        places = {
            "configs/pretrain_vitl_oct.toml": "configs/demo/pretrain.toml",
            "data.shards=s3://BUCKET/oct": f"data.shards={self.shards}",
            "data.cache_dir=/scratch/cache": f"data.cache_dir={self.folder}/cache",
            "run.url=s3://BUCKET/runs/vitl": f"run.url={self.run}",
        }
        arguments = [*(places[word] for word in container["args"]), *SMALL, "train.precision=fp32", *settings]
        set_here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        set_here |= {"RANKS_PER_NODE": "1", "VENV": sys.prefix, "GLOO_SOCKET_IFNAME": "lo"}
        set_here |= {"TMPDIR": str(self.folder), "HOME": os.environ["HOME"]}
        kept = {
            k: v
            for k, v in os.environ.items()
            if k not in ("RANK", "WORLD_SIZE", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
        }
        for index in range(job["spec"]["completions"]):
            env = kept | environment(container) | set_here | {"JOB_COMPLETION_INDEX": str(index)}
            with (self.folder / f"pod{index}.log").open("a") as log:
                self.processes.append(
                    subprocess.Popen(
                        [*command, *arguments], env=env, cwd="/", stdout=log, stderr=log, text=True
                    )
                )

    def step(self) -> int:
        """The last step that was logged; 0: none."""
        return (
            ([0] + [row["step"] for row in metrics(self.run)])[-1]
            if (self.run / "metrics.jsonl").exists()
            else 0
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.2)

    def ended_with(self) -> list[int]:
        codes = [process.wait(120) for process in self.processes]
        self.processes.clear()
        return codes

    def logs(self) -> str:
        return "\n".join(path.read_text()[-4000:] for path in sorted(self.folder.glob("pod*.log")))


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    pods = Pods(tmp_path)
    yield pods
    for process in pods.processes:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            child.kill()
        process.kill()


@pytest.mark.slow
def test_when_one_pod_is_evicted_all_save_and_start_again_where_they_were(pods: Pods) -> None:
    pods.start("train.steps=100000", "checkpoint.every_steps=50000")
    pods.wait_until(lambda: pods.step() > 2)
    pods.processes[1].send_signal(signal.SIGTERM)  # to the container's first process alone, as a kubelet does
    assert pods.ended_with() == [START_AGAIN, START_AGAIN], pods.logs()
    saved = checkpoint_folder.list_steps(str(pods.run))[-1]
    assert saved == pods.step()

    pods.start("train.steps=100000", "checkpoint.every_steps=50000", f"train.stop_at_step={saved + 4}")
    assert pods.ended_with() == [0, 0], pods.logs()
    assert f"resuming at step {saved}" in pods.logs()
    assert [row["step"] for row in metrics(pods.run)] == list(range(1, saved + 5))
    assert {row["world_size"] for row in metrics(pods.run)} == {2}


@pytest.mark.slow
def test_a_killed_rank_starts_both_pods_again_and_another_recipe_ends_the_job(pods: Pods) -> None:
    pods.start("train.steps=9", "train.hang_minutes=1", "checkpoint.every_steps=2", "checkpoint.keep_last=1")
    pods.wait_until(lambda: pods.step() > 2)
    ranks = [
        process
        for process in psutil.Process(pods.processes[1].pid).children(recursive=True)
        if "retfound_dist" in process.cmdline() and "torchrun" not in " ".join(process.cmdline())
    ]
    for rank in ranks:
        rank.kill()
    assert pods.ended_with() == [START_AGAIN, START_AGAIN], pods.logs()

    pods.start("train.steps=9", "train.seed=5")  # another run on the same URL
    assert pods.ended_with() == [PERMANENT, PERMANENT], pods.logs()
    pods.start("train.steps=9", "no.such=setting")
    assert pods.ended_with() == [PERMANENT, PERMANENT], pods.logs()
