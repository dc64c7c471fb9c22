"""Writes DATACARD.md: contents, sources, and left-out images of a shard set (pure)."""

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
from shards.report.burnt_in import compared_as
from shards.report.contact_sheet import reason_of
from shards.sources.datasets.citations import CITATIONS, OWN
from shards.write.packed_sample import SAME, Skipped
from shards.write.set_ownership import BESIDE

CARD, QUALITY, KEPT, OUT = BESIDE
PATHS = ("source.path", "root")
LOCAL = ("out.url", "out.workers", "out.bad_sample_budget", "out.names_table")
"""Settings of a machine: they change nothing in the set."""
BARS, BAR_WIDTH = 16, 40
"""Rows of the intensity histogram, and letters in its longest bar."""


def make_card(tree: Mapping[str, Any], config: PackConfig, config_file: str) -> str:
    """Markdown from a manifest's tree and the config it was packed with; `config_file`: its file's name."""
    shards, image = tree["shards"], tree["image"]
    megabytes = sum(shard["bytes"] for shard in shards) / 1e6
    again = command(config, config_file, hidden=_hidden(tree["sources"]))
    parts = [
        [f"# Data card: {tree['samples']:,} B-scans", ""],
        [f"{len(shards):,} shards, {megabytes:,.1f} MB, packed by {tree['packed_by']}.", ""],
        [f"[{QUALITY}]({QUALITY}) shows it: what was kept, what was not, what looks alike.", ""],
        # The fence is longer than any run of backticks inside: a source's name may hold some.
        [fence(again), again, fence(again), ""],
        ["## Sources", "", *_sources(tree["sources"]), ""],
        ["## Names", "", *_names(tree["sources"]), ""],
        ["## Parts", "", *_parts(shards, config), "", *card_lines(_escaped(tree["sources"])), ""],
        ["## Images", "", *_images(image), "", *histogram_lines(image["histogram"]), ""],
        [f"![Examples of each source]({KEPT})", ""],
        ["## Kept out", "", *_kept_out(tree["skipped"]), ""],
        ["## Probably no B-scans", "", *_suspects(tree.get("suspects", {})), ""],
        ["## Near duplicates", "", *_near(tree["near_duplicates"]), ""],
        ["## Burnt-in frames and marks", "", *_burnt_in(tree), ""],
        ["## Licences and citations", "", *_citations(tree["sources"])],
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def command(config: PackConfig, config_file: str, *, hidden: bool = False) -> str:
    """The command that packs the same set, with every setting that differs from its default.

    `hidden`: the set has digests for names, so paths of the sources are not shown.
    """
    tree, bare = configs.to_dict(config), configs.to_dict(PackConfig(out=PackOut(url="")))
    default = dict(configs.flatten(bare))
    changed = [(k, v) for k, v in configs.flatten(tree) if default.get(k) != v and k != "sources"]
    drawn = any(source.kind == "phantom" for source in config.all_sources)
    # A path such as /data/Smith_John tells what the digests hide.
    changed = [(k, "PATH" if hidden and k in PATHS else v) for k, v in changed if k not in LOCAL]
    words = [shlex.quote(plain(f"{k}={v}")) for k, v in changed if drawn or not k.startswith("phantom.")]
    file = "CONFIG.toml" if hidden else shlex.quote(plain(config_file))
    lines = [" ".join([f"retfound pack {file} out.url=URL", *words])]
    for source in config.sources:
        path = "PATH" if hidden else plain(source.path)
        lines.append(f"# [[sources]] kind = {source.kind!r}, path = {path!r}")
    return "\n".join(lines)


def _hidden(sources: Mapping[str, Any]) -> bool:
    return any(source.get("names", {}).get("keys") == DIGEST for source in sources.values())


def _escaped(sources: Mapping[str, Any]) -> dict[str, Any]:
    """The sources with their names escaped for Markdown."""
    return {markdown(name): source for name, source in sources.items()}


def _names(sources: Mapping[str, Any]) -> Iterator[str]:
    """For each source, whether names of people may be in the set, and why."""
    for name, source in sources.items():
        decision = (
            policy_sentence(source["names"])
            if "names" in source
            else "not recorded by the version that packed it"
        )
        yield f"- {markdown(name)}: {markdown(decision)}"
    if _hidden(sources):
        yield ""
        yield (
            "A digest (HMAC-SHA256) tells persons apart and not who they are, to all who lack the secret. "
            "The table of names and the secret are with whoever packed the set, and no part of it. Pictures "
            "are as they came."
        )


def histogram_lines(histogram: Sequence[int]) -> list[str]:
    """Levels of 0 to 255 in BARS rows of text."""
    width = len(histogram) // BARS
    counts = [sum(histogram[at : at + width]) for at in range(0, len(histogram), width)]
    total, most = sum(counts) or 1, max(counts) or 1
    rows = [
        f"{at * width:3d}-{at * width + width - 1:3d}  {100 * count / total:5.1f} %  "
        + "#" * round(BAR_WIDTH * count / most)
        for at, count in enumerate(counts)
    ]
    return ["Share of all pixels by level:", "", "```", *(row.rstrip() for row in rows), "```"]


def _sources(sources: Mapping[str, Any]) -> Iterator[str]:
    yield "| source | kind | images | patients | volumes | kept out | labels |"
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
        yield "How lists were read, what was passed over, what differs from the published sets:"
        yield ""
        yield from (f"- {markdown(name)}: {markdown(note)}" for name, note in notes)


def _parts(shards: Sequence[Mapping[str, Any]], config: PackConfig) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for shard in shards:
        counts[shard["split"] or "(no part)"] += shard["samples"]
    yield ", ".join(f"{name} {count:,}" for name, count in counts.items()) + "."
    shares = list(config.split.fractions)
    yield f"split.fractions {shares}, seed {config.split.seed}."


def _images(image: Mapping[str, Any]) -> Iterator[str]:
    size = f"{image['median_height']} x {image['median_width']}"
    yield f"- median {size} pixels (height x width), never enlarged"
    yield f"- {image['grey']:,} grey, {image['colour']:,} colour"
    encoded = image["grey"] + image["colour"] - image["stored_as_is"]
    yield (
        f"- {image['bytes_per_image']:,.0f} bytes an image; {image['stored_as_is']:,} stored as they came"
        + (f", {encoded:,} as {image['format']}" if encoded else "")
        + (f" of quality {image['quality']}" if encoded and image["format"] == "jpg" else "")
    )
    if image["psnr_db"] is not None:
        yield (
            f"- PSNR {image['psnr_db']} dB: what JPEG has lost of the encoded ones "
            f"({image['psnr_images']:,} measured)"
        )
    yield f"- mean level {image['mean']:.0f}, standard deviation {image['std']:.0f} (of 255)"


def _kept_out(skipped: Sequence[Mapping[str, str]]) -> Iterator[str]:
    if not skipped:
        yield "Nothing."
        return
    reasons = Counter(reason_of(Skipped.of(row)) for row in skipped)
    yield f"{len(skipped):,} scans; `manifest.json` names each of them."
    yield ""
    yield "| reason | scans |"
    yield "|---|--:|"
    # On the card the reason stands without the key of the other picture, which differs in every row.
    same = SAME.strip()
    shown = {reason: "has the same pixels as one that is kept" for reason in reasons if reason in same}
    rows = ((markdown(shown.get(reason, reason)), count) for reason, count in reasons.most_common(30))
    yield from (f"| {reason} | {count:,} |" for reason, count in rows)
    yield ""
    yield f"![What was kept out and why]({OUT})"


def _suspects(tree: Mapping[str, Any]) -> Iterator[str]:
    if not tree:
        yield "Every picture looks like a B-scan."
        return
    yield f"They are kept; [{QUALITY}]({QUALITY}) shows some. `image.leave_out_suspects` leaves them out."
    yield ""
    yield from (f"- {markdown(line)}" for line in suspect_lines(tree))


def _near(near: Mapping[str, Any]) -> Iterator[str]:
    if not near["pairs"]:
        yield "No picture looks like one of another patient (of another volume, where none is known)."
        return
    yield (
        f"{near['pairs']:,} pairs of pictures under different patients (volumes, where none is known) "
        "look alike, "
        f"{near['across_parts']:,} of them in different parts. They are kept; the first of those that "
        "`manifest.json` names:"
    )
    yield ""
    yield from (f"- {a} and {b} ({bits} of 256 bits differ)" for a, b, bits in near["first"][:10])


def _burnt_in(tree: Mapping[str, Any]) -> Iterator[str]:
    for name, (count, looked_at) in _escaped(tree["framed"]).items():
        if count:
            yield (
                f"- {name}: {count} of {looked_at} images looked at have a bright line along an edge, part "
                "of a frame; `image.trim=true` cuts it off"
            )
    for name, (count, looked_at) in _escaped(tree.get("not_compared", {})).items():
        yield (
            f"- {name}: marks were not looked for in {count} of {looked_at} images looked at: "
            "too few to be compared"
        )
    if not tree["burnt_in"]:
        yield "- marks: not looked for in any image, no source has enough of them to be compared"
    for name, compared in _escaped(tree["burnt_in"]).items():
        yield from (f"- {name}, {_compared(one)}" for one in compared)


def _compared(one: Mapping[str, Any]) -> str:
    """The result of one comparison of images."""
    text = f"{one['images']} images {compared_as(one)} compared"
    if not one["boxes"]:
        return f"{text}: none found"
    top, left, bottom, right = one["boxes"][0]
    return (
        f"{text}: {100 * one['share']:.2f} % of the pixels are bright and the same in all of them, "
        f"most in rows {top} to {bottom}, columns {left} to {right}"
    )


def _citations(sources: Mapping[str, Any]) -> Iterator[str]:
    for name, source in _escaped(sources).items():
        licence, citation = CITATIONS.get(source["kind"], OWN)
        yield f"- {name}: licence {licence}. Citation: {citation}"
