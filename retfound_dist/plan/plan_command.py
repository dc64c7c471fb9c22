"""`retfound plan`: what it reads and prints; and the lines that `pretrain` prints first."""

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
from retfound_dist.estimate.save_time import cancelling
from retfound_dist.formats import url_kinds
from retfound_dist.formats.shard_set import MANIFEST, Manifest, read_manifest
from retfound_dist.io import storage
from retfound_dist.plan.cluster import ClusterFlags, find_cluster
from retfound_dist.plan.data_facts import DataFacts, assumed_data, data_of
from retfound_dist.plan.measured_rates import measured_rate, read_results
from retfound_dist.plan.recipe_check.findings import LEVELS, Finding
from retfound_dist.plan.recipe_check.recipe_check import check
from retfound_dist.plan.run_plan import DECODED, RunPlan, facts_of, plan_run, serious
from retfound_dist.runtime.humanize import duration, flops, plural, size
from retfound_dist.stream.batch_plan import make_batch_layout

SAMPLES, IMAGE_BYTES = 182_980, 50_000.0
"""Assumed where there is no shard set yet: a group's own OCT archive, 50 kB a B-scan."""


def plan_command(
    config_path: str,
    overrides: Sequence[str],
    wish: ClusterFlags,
    *,
    samples: int = 0,
    image_kb: float = 0.0,
    within_hours: float = 168.0,
    strict: bool = False,
    as_json: bool = False,
) -> int:
    """Print the plan; 1 with `strict` when a serious risk was found, else 0."""
    if min(samples, image_kb) < 0 or within_hours <= 0:
        raise ConfigError("--samples, --image-kb and --within-hours must be above 0")
    config, _ = load(PretrainConfig, config_path, overrides)
    data = _data(config, samples, image_kb)
    cluster = find_cluster(wish, os.environ)
    results, faults = read_results()
    for fault in faults:
        print(fault, file=sys.stderr)
    rate = measured_rate(results, cluster.device.name, config.model.name)
    plan = plan_run(config, data, cluster, rate, within_hours, cancelling(os.environ))
    if as_json:
        print(json.dumps(to_tree(plan), indent=1))
    else:
        print("\n".join(lines(plan, config, config_path)))
    return 1 if strict and serious(plan.findings) else 0


def recipe_lines(config: PretrainConfig, manifest: Manifest, ranks: int) -> list[str]:
    """What `pretrain` prints before its first step: the plan's lines; notes are only counted."""
    # `auto` is chosen later, on the device. Until then one pass a rank is assumed.
    micro = config.train.micro_batch
    cut = make_batch_layout(
        config.train.global_batch, ranks, config.train.global_batch if micro == "auto" else micro
    )
    data = data_of(manifest, config.data, not storage.is_local(manifest.url))
    return list(finding_lines(check(config, facts_of(data, None, cut)), notes=False))


def _data(config: PretrainConfig, samples: int, image_kb: float) -> DataFacts:
    """The shard set where there is one and nothing else was said, else an assumed one."""
    url = config.data.shards
    known = None
    if storage.exists(storage.join(url, MANIFEST)):
        known = data_of(read_manifest(url, config.data.first_shards), config.data, not storage.is_local(url))
        if not samples and not image_kb:
            return known
    elif not samples and not (
        storage.is_local(url) and url_kinds.kind_at(url) in (url_kinds.NOTHING, url_kinds.EMPTY)
    ):
        raise ManifestError(f"{url_kinds.refusal(url, url_kinds.SHARDS)}; or say --samples N [--image-kb K]")
    bytes_per_image = image_kb * 1e3 or (known.bytes / known.samples if known else IMAGE_BYTES)
    source = "as given" if samples or known else f"assumed: there is no shard set at {url}; say --samples N"
    count = samples or (known.samples if known else SAMPLES)
    return assumed_data(count, bytes_per_image, f"{source}; {bytes_per_image / 1e3:.4g} kB an image")


def to_tree(plan: RunPlan) -> dict[str, Any]:
    """The plan as plain values."""
    cluster, speed, saves, reads = plan.cluster, plan.speed, plan.saves, plan.reads
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
            "global_batch": plan.cut.global_batch,
            "micro_batch": plan.cut.micro,
            "accumulation": plan.cut.accumulation,
            "padding": plan.cut.padding,
            "padded": plan.cut.padded,
        },
        "length": {"steps": plan.steps, "epochs": plan.epochs, "images": plan.images},
        "memory": [
            {
                "zero_stage": each.stage,
                "runs": each.stage == plan.stage,
                "bytes": each.memory.total,
                "parts": asdict(each.memory),
                "fits": each.fits,
                "largest_micro_batch": each.largest_micro,
            }
            for each in plan.stages
        ],
        "speed": {
            "images_per_s_needed": speed.needed_images_per_s,
            "within_hours": plan.within_hours,
            "images_per_s": speed.images_per_s,
            "step_s": speed.step_s,
            "hours": plan.hours,
            "gpu_hours": plan.gpu_hours,
            "decoding_cores_per_node": speed.images_per_s / DECODED / cluster.nodes,
            "source": speed.source,
        },
        "checkpoints": {
            "count": saves.count,
            "weights_bytes": saves.weights_bytes,
            "state_bytes": saves.state_bytes,
            "total_bytes": saves.total_bytes,
            "every_s": saves.every_s,
            "save_s": plan.to_save.seconds,
        },
        "store": {
            "bytes_per_node_and_epoch": reads.epoch_bytes,
            "requests_per_node_and_epoch": reads.epoch_requests,
            "bytes_per_node": reads.epoch_bytes * plan.epochs,
            "requests_per_node": reads.epoch_requests * plan.epochs,
            "bytes_per_s_and_node": speed.store_rate,
            "remote": plan.data.remote,
        },
        "cache": {"wanted_bytes": _wanted(plan), "least_bytes": reads.window_bytes},
        "findings": [asdict(finding) for finding in plan.findings],
    }


def _wanted(plan: RunPlan) -> float:
    """Cache of a node that fetches each shard once: windows move over all of it, so all of it."""
    return float(plan.data.bytes)


def lines(plan: RunPlan, config: PretrainConfig, path: str) -> Iterator[str]:
    """The plan for a person; lines of at most 80 characters but for sources and risks."""
    cluster, speed, saves = plan.cluster, plan.speed, plan.saves
    yield f"{path}: {config.model.name}, {plan.cut.global_batch:,} images a step"
    gpus = f"{plural(cluster.nodes, 'node')} x {cluster.gpus_per_node} {cluster.device.name}"
    yield f"  cluster      {gpus} ({cluster.source})"
    shards = plural(len(plan.data.counts), "shard")
    behind = [(plan.data.patients, "patient"), (plan.data.volumes, "volume")]
    of = ", ".join(plural(count, name) for count, name in behind if count is not None)
    yield f"  data         {plan.data.samples:,} images, {size(plan.data.bytes)} in {shards}"
    if of:
        yield f"               of {of}"
    yield f"               {plan.data.source}"
    whole = flops(plan.flops_per_image * plan.images)
    yield (
        f"  model        {plan.parameters / 1e6:,.1f} M parameters; {flops(plan.flops_per_image)} an image, "
        f"{whole} in all"
    )
    yield from f"  batch        {plan.cut.describe()}".replace(
        ", less", ",\n" + " " * 15 + "less"
    ).splitlines()
    images = f"{plan.images / 1e6:,.4g} million images" if plan.images > 1e6 else f"{plan.images:,} images"
    yield f"  length       {plan.steps:,} steps, {plan.epochs:,.4g} epochs, {images}"
    yield ""
    yield from _memory_lines(plan)
    yield ""
    yield (
        f"  speed        {speed.images_per_s:,.0f} images/s predicted, a step {duration(speed.step_s)}; "
        f"needed for {plan.within_hours:g} h: {speed.needed_images_per_s:,.0f}"
    )
    yield f"               rate of one GPU: {speed.source}"
    yield f"  time         {duration(plan.hours * 3600)}, {plan.gpu_hours:,.4g} GPU-hours, stops left out"
    yield (
        f"  checkpoints  {saves.count:,}, one every {duration(saves.every_s)}: weights "
        f"{size(saves.weights_bytes)}, state {size(saves.state_bytes)};"
    )
    yield f"               {size(saves.total_bytes)} at the end (state of {saves.kept_states} kept)"
    yield f"               asked to stop, some {duration(plan.to_save.seconds)} until all is saved"
    cores = speed.images_per_s / DECODED / cluster.nodes
    yield f"  decoding     some {cores:,.1f} cores a node at {DECODED} images/s each"
    yield from _store_lines(plan)
    yield ""
    yield from finding_lines(plan.findings)


def _store_lines(plan: RunPlan) -> Iterator[str]:
    reads, speed = plan.reads, plan.speed
    if not plan.data.remote:
        yield "  S3           none: shards are local: read in place, no cache"
        return
    whole, requests = size(reads.epoch_bytes * plan.epochs), reads.epoch_requests * plan.epochs
    yield (
        f"  S3, a node   {size(reads.epoch_bytes)} and {reads.epoch_requests:,.0f} requests an epoch, "
        f"{size(speed.store_rate)}/s"
    )
    yield f"               {whole} and {requests:,.0f} requests in all, without a lasting cache"
    yield f"  cache        {size(_wanted(plan))} a node in data.cache_dir: each shard is fetched once;"
    yield f"               at least {size(reads.window_bytes)}, three windows"


def _memory_lines(plan: RunPlan) -> Iterator[str]:
    yield f"  memory a GPU of {plan.cluster.device.memory_gb:g} GB, predicted, in GB"
    heads = ("", "weights", "gradients", "AdamW", "activations", "other", "total", "", "most")
    widths = (7, 9, 10, 7, 12, 7, 7, 10, 7)
    yield "  " + "".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True))
    for each in plan.stages:
        m = each.memory
        other = m.total - m.state - m.activations
        numbers = (m.weights, m.gradients, m.optimizer, m.activations, other, m.total)
        cells = [f"ZeRO {each.stage}{'*' if each.stage == plan.stage else ' '}"]
        cells += [f"{n / 1e9:.1f}" for n in numbers]
        cells += ["fits" if each.fits else "too much", str(each.largest_micro or "none")]
        yield "  " + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))
    yield "  * is what train.zero_stage runs as; most: images a pass that fit"


def finding_lines(findings: Sequence[Finding], notes: bool = True) -> Iterator[str]:
    """The recipe check for a person; without `notes` these are counted, not told."""
    if not findings:
        yield "recipe check: nothing to say"
        return
    counts: Mapping[str, int] = {level: sum(f.level == level for f in findings) for level in LEVELS}
    summary = ", ".join(
        f"{n} serious" if level == "serious" else plural(n, level) for level, n in counts.items() if n
    )
    yield f"recipe check: {summary}" + ("" if notes or not counts["note"] else " (`retfound plan` tells)")
    for finding in findings:
        if notes or finding.level != "note":
            yield f"- {finding.line()}"
