"""Writes DATACARD.md: contents, sources and left-out images of a shard set (pure)."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retfound_dist.config import loading as configs
from retfound_dist.config.schema import PackConfig, PackOut
from retfound_dist.files.untrusted_text import fence, markdown, plain
from shards.images.suspects import suspect_lines
from shards.people.name_policy import DIGEST, policy_sentence
from shards.planning.patient_counts import card_lines
from shards.report.burnt_in import describe_comparison
from shards.report.contact_sheet import full_reason, short_reason
from shards.sources.datasets.citations import CITATIONS, OWN_DATA
from shards.write.packed_sample import Skipped
from shards.write.set_ownership import PAGE_FILES

CARD, QUALITY, EXAMPLES, DROPPED = PAGE_FILES
PATH_SETTINGS = ("source.path", "root")
LOCAL_SETTINGS = ("out.url", "out.workers", "out.bad_sample_budget", "out.names_table")
"""Settings that change nothing in the set."""
BARS, BAR_WIDTH = 16, 40
"""Rows of the histogram of levels, and letters in its longest bar."""


def make_card(tree: Mapping[str, Any], config: PackConfig, config_file: str) -> str:
    """Returns Markdown for a manifest and the config of its pack; `config_file`: the config's file name."""
    shards, image = tree["shards"], tree["image"]
    megabytes = sum(shard["bytes"] for shard in shards) / 1e6
    again = command(config, config_file, hidden=_has_digests(tree["sources"]))
    parts = [
        [f"# Data card: {tree['samples']:,} B-scans", ""],
        [
            f"{len(shards):,} shard{'' if len(shards) == 1 else 's'}, {megabytes:,.1f} MB, "
            f"packed by {tree['packed_by']}.",
            "",
        ],
        [f"[{QUALITY}]({QUALITY}) shows packed images, left-out images, and images that look alike.", ""],
        # The fence is longer than any run of backticks inside, because a source's name may hold some.
        [fence(again), again, fence(again), ""],
        ["## Sources", "", *_source_lines(tree["sources"]), ""],
        ["## Names", "", *_names(tree["sources"]), ""],
        ["## Parts", "", *_part_lines(shards, config), "", *card_lines(_escaped(tree["sources"])), ""],
        ["## Images", "", *_image_lines(image), "", *histogram_lines(image["histogram"]), ""],
        [f"![Examples of each source]({EXAMPLES})", ""],
        ["## Left out", "", *_left_out_lines(tree["skipped"]), ""],
        ["## Probably not B-scans", "", *_suspect_section(tree.get("suspects", {})), ""],
        ["## Near duplicates", "", *_near_duplicate_lines(tree["near_duplicates"]), ""],
        ["## Burnt-in frames and marks", "", *_burnt_in_lines(tree), ""],
        ["## Licences and citations", "", *_citations(tree["sources"])],
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def command(config: PackConfig, config_file: str, *, hidden: bool = False) -> str:
    """Returns the command that packs the same set, with every setting that differs from its default.

    `hidden`: paths of the sources are not shown, because the set has digests instead of names.
    """
    defaults = dict(configs.flatten(configs.to_dict(PackConfig(out=PackOut(url="")))))
    settings = configs.flatten(configs.to_dict(config))
    changed = [(k, v) for k, v in settings if defaults.get(k) != v and k not in ("sources", *LOCAL_SETTINGS)]
    has_phantom = any(source.kind == "phantom" for source in config.all_sources)
    # A path such as /data/Smith_John would show a name that the digests hide.
    changed = [(k, "PATH" if hidden and k in PATH_SETTINGS else v) for k, v in changed]
    words = [
        shlex.quote(plain(f"{k}={v}")) for k, v in changed if has_phantom or not k.startswith("phantom.")
    ]
    file = "CONFIG.toml" if hidden else shlex.quote(plain(config_file))
    lines = [" ".join([f"retfound pack {file} out.url=URL", *words])]
    for source in config.sources:
        path = "PATH" if hidden else plain(source.path)
        lines.append(f"# [[sources]] kind = {source.kind!r}, path = {path!r}")
    return "\n".join(lines)


def _has_digests(sources: Mapping[str, Any]) -> bool:
    return any(source.get("names", {}).get("keys") == DIGEST for source in sources.values())


def _escaped(sources: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sources with their names escaped for Markdown."""
    return {markdown(name): source for name, source in sources.items()}


def _names(sources: Mapping[str, Any]) -> Iterator[str]:
    """Yields for each source whether its keys are names or digests, and why."""
    for name, source in sources.items():
        decision = (
            policy_sentence(source["names"])
            if "names" in source
            else "not recorded by the version that packed it"
        )
        yield f"- {markdown(name)}: {markdown(decision)}"
    if _has_digests(sources):
        yield ""
        yield (
            "A digest (HMAC-SHA256) shows which images are of one person. Without the secret it does not "
            "show who the person is. The table of names and the secret are not in the set: the person who "
            "packed it has them. Names inside the pictures are not removed."
        )


def histogram_lines(histogram: Sequence[int]) -> list[str]:
    """Draws the histogram of levels 0 to 255 in BARS rows of text."""
    width = len(histogram) // BARS
    counts = [sum(histogram[at : at + width]) for at in range(0, len(histogram), width)]
    total, largest = sum(counts) or 1, max(counts) or 1
    rows = [
        f"{at * width:3d}-{at * width + width - 1:3d}  {100 * count / total:5.1f} %  "
        + "#" * round(BAR_WIDTH * count / largest)
        for at, count in enumerate(counts)
    ]
    return ["Share of all pixels by level:", "", "```", *(row.rstrip() for row in rows), "```"]


def _source_lines(sources: Mapping[str, Any]) -> Iterator[str]:
    """The table of the sources, and the notes on each."""
    yield "| source | kind | images | patients | volumes | left out | labels |"
    yield "|---|---|--:|--:|--:|--:|---|"
    for name, source in sources.items():
        labels = ", ".join(f"{markdown(label)} {count:,}" for label, count in source["labels"].items())
        counts = " | ".join(
            f"{source[key]:,}" if source[key] or key in ("samples", "skipped") else "not known"
            for key in ("samples", "patients", "volumes", "skipped")
        )
        yield f"| {markdown(name)} | {source['kind']} | {counts} | {labels} |"
    notes = [(name, note) for name, source in sources.items() for note in source.get("notes", ())]
    if notes:
        yield ""
        yield "Notes on lists, skipped files, and differences from the published sets:"
        yield ""
        yield from (f"- {markdown(name)}: {markdown(note)}" for name, note in notes)


def _part_lines(shards: Sequence[Mapping[str, Any]], config: PackConfig) -> Iterator[str]:
    """Yields the number of samples of each part, and the settings that made the parts."""
    counts: Counter[str] = Counter()
    for shard in shards:
        counts[shard["split"] or "(no part)"] += shard["samples"]
    yield ", ".join(f"{name} {count:,}" for name, count in counts.items()) + "."
    yield f"split.fractions {list(config.split.fractions)}, seed {config.split.seed}."


def _image_lines(image: Mapping[str, Any]) -> Iterator[str]:
    """Size, colour, encoding and levels of the images. `image`: the entry `image` of the manifest."""
    size = f"{image['median_height']} x {image['median_width']}"
    yield f"- median size {size} pixels (height x width); no image was enlarged"
    yield f"- {image['grey']:,} grey, {image['colour']:,} colour"
    encoded = image["grey"] + image["colour"] - image["stored_as_is"]
    yield (
        f"- {image['bytes_per_image']:,.0f} bytes per image; {image['stored_as_is']:,} stored unchanged"
        + (f", {encoded:,} encoded as {image['format']}" if encoded else "")
        + (f" of quality {image['quality']}" if encoded and image["format"] == "jpg" else "")
    )
    if image["psnr_db"] is not None:
        yield (
            f"- PSNR of the encoded images: {image['psnr_db']} dB "
            f"(measured on {image['psnr_images']:,} of them)"
        )
    yield f"- mean level {image['mean']:.0f}, standard deviation {image['std']:.0f} (of 255)"


def _left_out_lines(skipped: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """A table of the reasons why images were left out, with the number of images; the 30 most frequent."""
    if not skipped:
        yield "Nothing."
        return
    reasons = Counter(short_reason(Skipped.from_row(row)) for row in skipped)
    yield f"{len(skipped):,} images; `manifest.json` lists all of them."
    yield ""
    yield "| reason | images |"
    yield "|---|--:|"
    rows = ((markdown(full_reason(reason)), count) for reason, count in reasons.most_common(30))
    yield from (f"| {reason} | {count:,} |" for reason, count in rows)
    yield ""
    yield f"![Left-out images with the reason]({DROPPED})"


def _suspect_section(tree: Mapping[str, Any]) -> Iterator[str]:
    if not tree:
        yield "Every picture looks like a B-scan."
        return
    yield (
        f"These images are in the set. Check them: [{QUALITY}]({QUALITY}) shows some. "
        "`image.leave_out_suspects` leaves such images out."
    )
    yield ""
    yield from (f"- {markdown(line)}" for line in suspect_lines(tree))


def _near_duplicate_lines(near: Mapping[str, Any]) -> Iterator[str]:
    if not near["pairs"]:
        yield "No two pictures of different patients look alike (different volumes, if no patient is known)."
        return
    yield (
        f"{near['pairs']:,} pairs of pictures look alike and are of different patients (volumes, if "
        f"no patient is known). {near['across_parts']:,} pairs are in different parts. All are in the set. "
        "`manifest.json` lists pairs; the first are:"
    )
    yield ""
    yield from (f"- {a} and {b} ({bits} of 256 bits differ)" for a, b, bits in near["first"][:10])


def _burnt_in_lines(tree: Mapping[str, Any]) -> Iterator[str]:
    """What a sample of the images shows of frames and of marks that all images share."""
    yield "Some images of each source were checked:"
    yield ""
    for name, (count, checked) in _escaped(tree["framed"]).items():
        if count:
            yield (
                f"- {name}: {count} of {checked} checked images have a bright line along an edge, part of a "
                "frame; `image.trim=true` removes it"
            )
    for name, (count, checked) in _escaped(tree.get("not_compared", {})).items():
        yield f"- {name}: {count} of {checked} checked images were not compared: too few of similar size"
    if not tree["burnt_in"]:
        yield "- marks that are the same in all images were not searched: no source has enough images"
    for name, comparisons in _escaped(tree["burnt_in"]).items():
        yield from (f"- {name}: {_comparison_result(comparison)}" for comparison in comparisons)


def _comparison_result(comparison: Mapping[str, Any]) -> str:
    images = describe_comparison(comparison)
    if not comparison["boxes"]:
        return f"no mark in {images}"
    top, left, bottom, right = comparison["boxes"][0]
    return (
        f"a mark in {images}: {100 * comparison['share']:.2f} % of the pixels are bright and the same in all "
        f"images, most of them in rows {top} to {bottom}, columns {left} to {right}"
    )


def _citations(sources: Mapping[str, Any]) -> Iterator[str]:
    for name, source in _escaped(sources).items():
        licence, citation = CITATIONS.get(source["kind"], OWN_DATA)
        yield f"- {name}: licence: {licence}. Citation: {citation}"
