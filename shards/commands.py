"""The commands `retfound pack` and `retfound verify`: their output and exit codes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PackConfig
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.io import storage
from retfound_dist.runtime.progress import show_progress
from shards.append import append, plan_of
from shards.images.suspects import suspect_lines
from shards.pack import existing_set, pack_planned, plan_pack
from shards.people.name_policy import DIGEST, HARMLESS, PUBLISHED, policy_sentence
from shards.people.names_table import table_path
from shards.people.secret import find_secret
from shards.planning.pack_plan import PackPlan
from shards.planning.patient_counts import count_split, known_in_words, split_in_words
from shards.repair import repair
from shards.report.data_card import QUALITY
from shards.verify import inspect_set
from shards.write.manifest import count_scans
from shards.write.packed_sample import SAME_PICTURE

MAX_LISTED = 5
"""Skipped images in the closing summary; the manifest lists all."""


def pack_command(
    config_path: str,
    overrides: Sequence[str],
    *,
    force: bool = False,
    dry_run: bool = False,
    add: bool = False,
    quiet: bool = False,
) -> int:
    """Pack the sources of a config and print a short summary. Returns 0 or raises a RetfoundError.

    `add`: append to the set at `out.url`.
    """
    config, _ = load(PackConfig, config_path, overrides)
    if add and not dry_run:
        with show_progress("packing", "images", quiet=quiet) as progress:
            manifest = append(config, progress, os.path.basename(config_path))
        _print_lines([*summary_lines(manifest), *names_table_lines(manifest, config)], quiet)
        return 0
    with show_progress("listing", "files", quiet=quiet) as progress:
        plan = plan_pack(config, dry=dry_run, on_progress=progress)
    if dry_run:
        _print_lines(plan_lines(plan, config), quiet)
        return 0
    finished = existing_set(config, plan, force=force)
    if finished:
        hint = "names and sizes of the files were compared, not their content; --force packs them again"
        _print_lines([f"already packed: {_size_text(finished)} at {finished.url}", f"  {hint}"], quiet)
        return 0
    with show_progress("packing", "images", quiet=quiet) as progress:
        manifest = pack_planned(config, plan, progress, os.path.basename(config_path), force=force)
    _print_lines([*summary_lines(manifest), *names_table_lines(manifest, config)], quiet)
    return 0


def verify_command(
    url: str,
    *,
    workers: int = 0,
    repair_with: str = "",
    overrides: Sequence[str] = (),
    quiet: bool = False,
) -> int:
    """Check a shard set. Returns 0 if it has no fault, else prints every fault and returns 1.

    `repair_with`: the config the set was packed with. Bad shards are then rebuilt from the sources.
    """
    with show_progress("verifying", "shards", quiet=quiet) as progress:
        report = inspect_set(url, workers, progress)
    if report.bad_shards and repair_with:
        _print_lines([*report.faults, f"rebuilding {len(report.bad_shards)} shards"], quiet)
        config, _ = load(PackConfig, repair_with, [*overrides, f"out.url={url}"])
        repair(config, plan_of(config), report.bad_shards)
        # Read again, because only bytes that were read from the store count as checked.
        report = inspect_set(url, workers)
    if report.faults:
        hint = (
            "pack this set again"
            if repair_with
            else "--repair CONFIG.toml rebuilds bad shards from the sources"
        )
        closing_line = f"{url}: faults found: {len(report.faults)}; {hint}"
        # Faults are the result of the command, so --quiet does not hide them.
        _print_lines([*report.faults, *report.notes, closing_line], quiet=False)
        return 1
    manifest = read_manifest(url)
    _print_lines([*report.notes, f"{url}: {_size_text(manifest)}, no faults"], quiet)
    return 0


def plan_lines(plan: PackPlan, config: PackConfig) -> list[str]:
    """Describes what a pack would write, by source, part and label."""
    lines = [f"would pack {len(plan.scans):,} images to {config.out.url} (nothing is written)"]
    for source in sorted({scan.source for scan in plan.scans}):
        scans = [scan for scan in plan.scans if scan.source == source]
        counts = {**count_scans(scans), "split_by": count_split(scans, plan)}
        lines += _source_count_lines(source, counts)
        lines += [f"    note: {note}" for note in plan.notes.get(source, ())]
        if source in plan.name_policies:
            lines += _name_policy_lines(plan.name_policies[source].to_tree())
    return lines


def names_table_lines(manifest: Manifest, config: PackConfig) -> list[str]:
    """Says where the table of names and the secret are; no lines if all keys are names."""
    if not any(source.get("names", {}).get("keys") == DIGEST for source in manifest.sources.values()):
        return []
    return [
        f"names behind the digests: {table_path(config)} (on this machine; only you can read it)",
        f"secret of the digests: {find_secret(create=False).location} (keep it: another gives other digests)",
    ]


def _name_policy_lines(policy: Mapping[str, Any]) -> list[str]:
    """A line on how the names of a source become keys; none where its names may be published as they are.

    `policy`: `NamePolicy.to_tree`, which the manifest has as `names` of the source.
    """
    return [] if policy["why"] in (HARMLESS, PUBLISHED) else [f"    names: {policy_sentence(policy)}"]


def summary_lines(manifest: Manifest) -> list[str]:
    """Summarizes a finished pack in a few lines."""
    lines = [f"packed {_size_text(manifest)}"]
    for source, counts in manifest.sources.items():
        lines += _source_count_lines(source, counts)
        lines += [f"    note: {note}" for note in counts.get("notes", ())]
        lines += _name_policy_lines(counts["names"]) if "names" in counts else []
    lines += [f"suspected: {line}" for line in suspect_lines(manifest.suspects)]
    if manifest.suspects:
        where = storage.join(manifest.url, QUALITY)
        lines.append(
            f"  they are packed all the same: check {where}; image.leave_out_suspects leaves them out"
        )
    if manifest.skipped:
        reasons = Counter(skip["reason"] for skip in manifest.skipped)
        lines.append(f"left out {len(manifest.skipped):,} images, all listed in the manifest:")
        # Duplicates come last: there may be thousands, and only an unreadable file needs a person.
        faults_first = sorted(manifest.skipped, key=lambda skip: skip["reason"].startswith(SAME_PICTURE))
        lines += [f"  {skip['origin']} {skip['reason']}" for skip in faults_first[:MAX_LISTED]]
        if len(manifest.skipped) > MAX_LISTED:
            lines.append(f"  ... most often: {reasons.most_common(1)[0][0]}")
    return [*lines, f"shard set: {manifest.url}"]


def _size_text(manifest: Manifest) -> str:
    """`1,200 images in 3 shards (42.0 MB)`."""
    megabytes = sum(shard.bytes for shard in manifest.shards) / 1e6
    return f"{manifest.samples:,} images in {len(manifest.shards):,} shards ({megabytes:,.1f} MB)"


def _source_count_lines(source: str, counts: Mapping[str, Any]) -> list[str]:
    """Describe a source: its images, patients and volumes, how it was split, and the labels of each part.

    `source`: its name. `counts`: those of `manifest.count_scans`, with `split_by` (`count_split`).
    """
    units = [f"{counts[unit]:,} {unit}" for unit in ("patients", "volumes") if counts[unit]]
    lines = [f"  {source}: " + ", ".join([f"{counts['samples']:,} images", *units])]
    phrases = [text for text in (known_in_words(counts), split_in_words(counts.get("split_by", {}))) if text]
    lines += [f"    {'; '.join(phrases)}"] if phrases else []
    # A source without a split has one line, with the labels of all its images.
    counts_by_part = counts["splits"] or {"labels": counts}
    for name, part_counts in counts_by_part.items():
        lines.append(f"    {name}: {part_counts['samples']:,} ({_label_counts_text(part_counts)})")
    return lines


def _label_counts_text(counts: Mapping[str, Any]) -> str:
    """`AMD 12, normal 30`. `counts`: those of a source, or of one part of it."""
    return ", ".join(f"{label} {n:,}" for label, n in counts["labels"].items())


def _print_lines(lines: Sequence[str], quiet: bool) -> None:
    if not quiet:
        print("\n".join(lines), flush=True)
