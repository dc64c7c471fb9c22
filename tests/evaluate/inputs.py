"""Small labelled sets and checkpoints that the evaluator's tests build for themselves."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from retfound_dist.config.schema import Model
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.shard_set import image_digest
from retfound_dist.io import storage
from retfound_dist.model.mae import MaskedAutoencoder

CLASSES = ("CSR", "MH", "NORMAL")
MODEL = Model(name="vit_demo_patch14", image_size=28, decoder_width=32, decoder_depth=1, decoder_heads=2)
TINY = [
    "model.name=vit_demo_patch14",
    "model.image_size=28",
    "data.workers=0",
    "finetune.epochs=2",
    "finetune.batch=8",
    "finetune.warmup_epochs=0.5",
    "bootstrap=50",
    "probe.kinds=['linear', 'knn']",
]
"""Overrides that make an evaluation of a made-up set take seconds. An attentive probe takes many steps."""


def image_bytes(label: int, seed: int, kind: str = "JPEG", shade: int = 60) -> bytes:
    """A grey 48x40 image whose brightness tells its class, unless `shade` is 0."""
    noise = np.random.default_rng([label, seed]).integers(0, 60, (40, 48))
    buffer = io.BytesIO()
    Image.fromarray((noise + shade * label).astype(np.uint8)).save(buffer, kind, quality=95)
    return buffer.getvalue()


def class_folders(
    root: Path, each: int = 10, classes: Sequence[str] = CLASSES, shade: int = 60, seed: int = 0
) -> Path:
    """`root/<class>/<class>_<i>.jpg`; no image is that of a seed far away."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            (root / name / f"{name}_{i}.jpg").write_bytes(image_bytes(label, seed + i, shade=shade))
    return root


def octid_folders(root: Path, parts: Sequence[str] = ("train", "val", "test"), each: int = 4) -> Path:
    """`root/<part>/<class>/*.jpg`."""
    for place, part in enumerate(parts):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for i in range(each):
                (root / part / name / f"{i}.jpg").write_bytes(image_bytes(label, 100 * place + i))
    return root


def write_listing(root: Path, rows: Sequence[dict[str, str]]) -> None:
    """`manifest.csv` beside class folders."""
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def list_patients(root: Path, images_each: int = 2) -> None:
    """A `manifest.csv` in which so many images of a class share a patient."""
    rows = [
        {"file": f"{c}/{c}_{i}.jpg", "label": c, "patient": f"{c}{i // images_each}"}
        for c in CLASSES
        for i in range(len(list((root / c).glob("*.jpg"))))
    ]
    write_listing(root, rows)


def shard_set(root: Path, samples: Sequence[dict[str, str | None]]) -> Path:
    """One shard of images with these JSON notes (`key` is taken out of each)."""
    root.mkdir(parents=True)
    rows = []
    with tarfile.open(root / "oct-000000.tar", "w") as tar:
        for i, sample in enumerate(samples):
            note = {k: v for k, v in sample.items() if k != "key"}
            label = CLASSES.index(note["label"]) if note.get("label") in CLASSES else 0
            members = {"jpg": image_bytes(label, i), "json": json.dumps(note).encode()}
            place = []
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{sample['key']}.{extension}")
                info.size = len(data)
                place += [tar.offset + 512, len(data)]
                tar.addfile(info, io.BytesIO(data))
            rows.append([sample["key"], "jpg", *place, image_digest(members["jpg"])])
    (root / "oct-000000.idx").write_text(json.dumps({"format": 1, "samples": rows}))
    index = storage.file_info(str(root / "oct-000000.idx"))
    shard = storage.file_info(str(root / "oct-000000.tar"))
    entry = {
        "name": "oct-000000.tar",
        "samples": len(rows),
        "bytes": shard.bytes,
        "sha256": shard.sha256,
        "split": None,
        "index": {"name": "oct-000000.idx", "bytes": index.bytes, "sha256": index.sha256},
    }
    manifest = {
        "format": 1,
        "samples": len(rows),
        "shards": [entry],
        "sources": {},
        "image": {},
        "skipped": [],
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


def checkpoint(run: Path, step: int, seed: int = 0, steps: int = 20, generation: int = 0) -> str:
    """A committed checkpoint of a tiny autoencoder, with the run's config.json and metrics.jsonl."""
    url = checkpoint_folder.checkpoint_url(str(run), step)
    Path(url).mkdir(parents=True)
    torch.manual_seed(seed + step)
    state = MaskedAutoencoder(MODEL).state_dict()
    file = f"{url}/{checkpoint_folder.WEIGHTS}"
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, file)
    config = {"model": dataclasses.asdict(MODEL), "train": {"steps": steps}}
    storage.write_json(str(run / "config.json"), config)
    lines = [json.dumps({"step": s, "loss": 1.0 - s / 100}) for s in range(1, steps + 1)]
    storage.write_text(str(run / "metrics.jsonl"), "\n".join(lines) + "\n")
    checkpoint_folder.write_commit(
        checkpoint_folder.Commit(
            url=url,
            step=step,
            samples=step * 8,
            world_size=1,
            zero_stage=0,
            precision="fp32",
            batch_digest="0",
            time="2026-01-01T00:00:00Z",
            config=config,
            files={checkpoint_folder.WEIGHTS: storage.file_info(file)},
            generation=generation,
        )
    )
    return url


def target_list(
    root: Path, rows: Sequence[dict[str, str]], shade: int = 60, patients: int | None = None
) -> Path:
    """`root/list.csv` with these columns and an image for each row, as bright as its `shade`, from 0 to 2.

    `patients`: so many patients share the images in turn.
    """
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, row in enumerate(rows):
        noise = np.random.default_rng([7, i]).integers(0, 60, (40, 48))
        pixels = noise + shade * float(row.get("shade", 0))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{i:03d}.png")
        columns = {name: cell for name, cell in row.items() if name != "shade"}
        patient = {"patient": f"p{i % patients}"} if patients else {}
        lines.append({"file": f"{i:03d}.png", **patient, **columns})
    with (root / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return root / "list.csv"
