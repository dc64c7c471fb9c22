"""`retfound plan`: plans a run and prints the plan, for people or as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import ConfigError, ManifestError
from retfound_dist.estimate.loader_processes import IMAGES_PER_S
from retfound_dist.estimate.save_time import scancel_grace
from retfound_dist.formats import url_kinds
from retfound_dist.formats.shard_set import MANIFEST, Manifest, read_manifest
from retfound_dist.io import storage
from retfound_dist.plan.cluster import LOW_EFFICIENCY, ClusterFlags, find_cluster
from retfound_dist.plan.data_facts import DataFacts, assumed_data, packed_data
from retfound_dist.plan.measured_rates import measured_rate, read_measured, read_results
from retfound_dist.plan.recipe_check.findings import LEVELS, Finding
from retfound_dist.plan.recipe_check.recipe_check import check
from retfound_dist.plan.run_plan import RunPlan, has_serious, plan_run, recipe_facts
from retfound_dist.runtime.humanize import duration, flops, plural, size
from retfound_dist.stream.batch_plan import make_batch_layout

ASSUMED_SAMPLES, ASSUMED_IMAGE_BYTES = 182_980, 50_000.0
"""Used where there is no shard set yet: the OCT archive of one clinic, with 50 kB a B-scan."""


def plan_command(
    config_path: str,
    overrides: Sequence[str],
    flags: ClusterFlags,
    *,
    samples: int = 0,
    image_kb: float = 0.0,
    within_hours: float = 168.0,
    strict: bool = False,
    as_json: bool = False,
) -> int:
    """Print the plan; returns 1 with `strict` where there is a serious risk, else 0."""
    if min(samples, image_kb) < 0 or within_hours <= 0:
        raise ConfigError("--samples, --image-kb and --within-hours must be above 0")
    config, _ = load(PretrainConfig, config_path, overrides)
    data = _data_facts(config, samples, image_kb)
    cluster = find_cluster(flags, os.environ)
    results, faults = read_results()
    measured, measured_faults = read_measured(config.run.url)
    for fault in [*faults, *measured_faults]:
        print(fault, file=sys.stderr)
    # The doctor's own: it measured the very machines. Benchmarks may be of another cluster.
    rate = measured_rate(measured, cluster.device.name, config.model.name)
    rate = rate or measured_rate(results, cluster.device.name, config.model.name)
    plan = plan_run(config, data, cluster, rate, within_hours, scancel_grace(os.environ))
    if as_json:
        print(json.dumps(to_tree(plan), indent=1))
    else:
        print("\n".join(plan_lines(plan, config, config_path)))
    return 1 if strict and has_serious(plan.findings) else 0


def recipe_lines(config: PretrainConfig, manifest: Manifest, ranks: int) -> list[str]:
    """The recipe check as `pretrain` prints it before its first step: notes are only counted."""
    # `auto` is resolved later, on the device. Until then one pass of each rank is assumed.
    micro = config.train.micro_batch
    batch = make_batch_layout(
        config.train.global_batch, ranks, config.train.global_batch if micro == "auto" else micro
    )
    data = packed_data(manifest, config.data, not storage.is_local(manifest.url))
    return list(finding_lines(check(config, recipe_facts(data, None, batch)), show_notes=False))


def _data_facts(config: PretrainConfig, samples: int, image_kb: float) -> DataFacts:
    """The facts of the shard set; of an assumed one where there is none, or where flags describe another."""
    url = config.data.shards
    packed = None
    if storage.exists(storage.join(url, MANIFEST)):
        packed = packed_data(
            read_manifest(url, config.data.first_shards), config.data, not storage.is_local(url)
        )
        if not samples and not image_kb:
            return packed
    elif not samples and not (
        storage.is_local(url) and url_kinds.kind_at(url) in (url_kinds.NOTHING, url_kinds.EMPTY)
    ):
        raise ManifestError(
            f"{url_kinds.wrong_kind_message(url, url_kinds.SHARDS)}; or give --samples N [--image-kb K]"
        )
    bytes_per_image = image_kb * 1e3 or (packed.bytes / packed.samples if packed else ASSUMED_IMAGE_BYTES)
    source = "from flags" if samples or packed else f"assumed: no shard set at {url}; give --samples N"
    count = samples or (packed.samples if packed else ASSUMED_SAMPLES)
    return assumed_data(count, bytes_per_image, f"{source}; {bytes_per_image / 1e3:.4g} kB an image")


def to_tree(plan: RunPlan) -> dict[str, Any]:
    """The plan as plain values, for JSON. Units are in the names: bytes, `_s` seconds, `_gb` 1e9 bytes."""
    cluster, speed, saves, reads = plan.cluster, plan.speed, plan.checkpoints, plan.node_reads
    return {
        "cluster": {
            "nodes": cluster.nodes,
            "gpus_per_node": cluster.gpus_per_node,
            "ranks": cluster.ranks,
            "device": cluster.device.name,
            "gpu_memory_gb": cluster.device.memory_gb,
            "source": cluster.source,
        },
        "data": {
            "samples": plan.data.samples,
            "patients": plan.data.patients,
            "volumes": plan.data.volumes,
            "shards": len(plan.data.counts),
            "bytes": plan.data.bytes,
            "source": plan.data.source,
        },
        "model": {
            "parameters": plan.parameters,
            "flops_per_image": plan.flops_per_image,
            "flops_total": plan.flops_per_image * plan.images,
        },
        "batch": {
            "global_batch": plan.batch.global_batch,
            "micro_batch": plan.batch.micro,
            "accumulation": plan.batch.accumulation,
            "padding": plan.batch.padding,
            "padded": plan.batch.padded,
        },
        "length": {"steps": plan.steps, "epochs": plan.epochs, "images": plan.images},
        "memory": [
            {
                "zero_stage": estimate.stage,
                "runs": estimate.stage == plan.stage,
                "bytes": estimate.memory.total,
                "parts": asdict(estimate.memory),
                "fits": estimate.fits,
                "largest_micro_batch": estimate.largest_micro_batch,
            }
            for estimate in plan.stages
        ],
        "speed": {
            "images_per_s_needed": speed.images_per_s_needed,
            "within_hours": plan.within_hours,
            "images_per_s": speed.images_per_s,
            "step_s": speed.step_s,
            "hours": plan.hours,
            "hours_at_low_rate": plan.slow_hours,
            "gpu_hours": plan.gpu_hours,
            "decoding_cores_per_node": speed.images_per_s / IMAGES_PER_S / cluster.nodes,
            "source": speed.source,
        },
        "checkpoints": {
            "count": saves.count,
            "weights_bytes": saves.weights_bytes,
            "state_bytes": saves.state_bytes,
            "total_bytes": saves.total_bytes,
            "every_s": saves.interval_s,
            "save_s": plan.save_time.seconds,
        },
        "store": {
            "bytes_per_node_and_epoch": reads.epoch_bytes,
            "requests_per_node_and_epoch": reads.epoch_requests,
            "bytes_per_node": reads.epoch_bytes * plan.epochs,
            "requests_per_node": reads.epoch_requests * plan.epochs,
            "bytes_per_s_and_node": speed.store_bytes_per_s,
            "remote": plan.data.remote,
        },
        "cache": {"wanted_bytes": _full_cache_bytes(plan), "least_bytes": reads.stored_bytes},
        "findings": [finding.to_json() for finding in plan.findings],
    }


def _full_cache_bytes(plan: RunPlan) -> float:
    """Size of a cache with which a node fetches each shard once: in time every node reads all of the set."""
    return float(plan.data.bytes)


def plan_lines(plan: RunPlan, config: PretrainConfig, path: str) -> Iterator[str]:
    """The plan for a person, in lines of at most 80 characters, except for sources and risks."""
    cluster, speed, saves = plan.cluster, plan.speed, plan.checkpoints
    yield f"{path}: {config.model.name}, {plan.batch.global_batch:,} images a step"
    gpus = f"{plural(cluster.nodes, 'node')} x {cluster.gpus_per_node} {cluster.device.name}"
    yield f"  cluster      {gpus} ({cluster.source})"
    shards = plural(len(plan.data.counts), "shard")
    groups = [(plan.data.patients, "patient"), (plan.data.volumes, "volume")]
    group_counts = ", ".join(plural(count, name) for count, name in groups if count is not None)
    yield f"  data         {plan.data.samples:,} images, {size(plan.data.bytes)} in {shards}"
    if group_counts:
        yield f"               of {group_counts}"
    yield f"               {plan.data.source}"
    total_flops = flops(plan.flops_per_image * plan.images)
    yield (
        f"  model        {plan.parameters / 1e6:,.1f} M parameters; {flops(plan.flops_per_image)} an image, "
        f"{total_flops} in all"
    )
    yield from f"  batch        {plan.batch.describe()}".replace(
        ", less", ",\n" + " " * 15 + "less"
    ).splitlines()
    images = f"{plan.images / 1e6:,.4g} million images" if plan.images > 1e6 else f"{plan.images:,} images"
    yield f"  length       {plan.steps:,} steps, {plan.epochs:,.4g} epochs, {images}"
    yield ""
    yield from _memory_lines(plan)
    yield ""
    yield (
        f"  speed        {speed.images_per_s:,.0f} images/s predicted, a step {duration(speed.step_s)}; "
        f"needed for {plan.within_hours:g} h: {speed.images_per_s_needed:,.0f}"
    )
    yield f"               rate of one GPU: {speed.source}"
    hours = duration(plan.hours * 3600)
    yield f"  time         {hours}, {plan.gpu_hours:,.4g} GPU-hours, without interruptions"
    if plan.slow_hours is not None:
        yield (
            f"               up to {duration(plan.slow_hours * 3600)}, "
            f"{plan.slow_hours * cluster.ranks:,.4g} GPU-hours, at {LOW_EFFICIENCY:.0%} as MAE on V100"
        )
    yield (
        f"  checkpoints  {saves.count:,}, one every {duration(saves.interval_s)}: weights "
        f"{size(saves.weights_bytes)}, state {size(saves.state_bytes)};"
    )
    yield f"               {size(saves.total_bytes)} at the end (state of {saves.kept_states} kept)"
    yield f"               a save takes about {duration(plan.save_time.seconds)}"
    cores = speed.images_per_s / IMAGES_PER_S / cluster.nodes
    yield f"  decoding     about {cores:,.1f} cores a node, at {IMAGES_PER_S:.0f} images/s each"
    yield from _store_lines(plan)
    yield ""
    yield from finding_lines(plan.findings)


def _store_lines(plan: RunPlan) -> Iterator[str]:
    """How much a node reads from S3, and how large its cache should be."""
    reads, speed = plan.node_reads, plan.speed
    if not plan.data.remote:
        yield "  S3           not used: the shards are local, and need no cache"
        return
    total, requests = size(reads.epoch_bytes * plan.epochs), reads.epoch_requests * plan.epochs
    yield (
        f"  S3, a node   {size(reads.epoch_bytes)} and {reads.epoch_requests:,.0f} requests an epoch, "
        f"{size(speed.store_bytes_per_s)}/s"
    )
    yield f"               {total} and {requests:,.0f} requests in all, without a full cache"
    yield f"  cache        {size(_full_cache_bytes(plan))} a node in data.cache_dir fetches each shard once;"
    yield f"               the least is {size(reads.stored_bytes)}, the most that one node keeps"


def _memory_lines(plan: RunPlan) -> Iterator[str]:
    """A table of the predicted GPU memory: a line for each ZeRO stage, a column for each use."""
    yield f"  memory       predicted for each GPU of {plan.cluster.device.memory_gb:g} GB, in GB"
    heads = ("", "weights", "gradients", "AdamW", "activations", "other", "total", "", "max")
    widths = (7, 9, 10, 7, 12, 7, 7, 10, 7)
    yield "  " + "".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True))
    for estimate in plan.stages:
        memory = estimate.memory
        other = memory.total - memory.state - memory.activations
        numbers = (
            memory.weights, memory.gradients, memory.optimizer, memory.activations, other, memory.total,
        )  # fmt: skip
        cells = [f"ZeRO {estimate.stage}{'*' if estimate.stage == plan.stage else ' '}"]
        cells += [f"{n / 1e9:.1f}" for n in numbers]
        cells += ["fits" if estimate.fits else "too much", str(estimate.largest_micro_batch or "none")]
        yield "  " + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))
    yield "  * the stage of this run; max: the largest train.micro_batch that fits"


def finding_lines(findings: Sequence[Finding], show_notes: bool = True) -> Iterator[str]:
    """The recipe check for a person; without `show_notes` the notes are only counted."""
    if not findings:
        yield "recipe check: no risks found"
        return
    counts: Mapping[str, int] = {level: sum(f.level == level for f in findings) for level in LEVELS}
    summary = ", ".join(
        f"{n} serious" if level == "serious" else plural(n, level) for level, n in counts.items() if n
    )
    yield f"recipe check: {summary}" + (
        "" if show_notes or not counts["note"] else " (`retfound plan` shows notes)"
    )
    for finding in findings:
        if show_notes or finding.level != "note":
            yield f"- {finding.line()}"
