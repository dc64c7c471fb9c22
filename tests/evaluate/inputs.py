"""Small labelled sets and checkpoints that the evaluator's tests build for themselves."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from retfound_dist import commit, storage
from retfound_dist.evaluate import bootstrap, metrics
from retfound_dist.evaluate.evaluate import evaluate_command
from retfound_dist.evaluate.results import Evaluation
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.schema import Model
from retfound_dist.shardset import image_digest

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
]
"""Overrides that make an evaluation of a made-up set take seconds."""


def image_bytes(label: int, seed: int, kind: str = "JPEG", shade: int = 60) -> bytes:
    """A grey 48x40 image whose brightness tells its class, unless `shade` is 0."""
    noise = np.random.default_rng([label, seed]).integers(0, 60, (40, 48))
    buffer = io.BytesIO()
    Image.fromarray((noise + shade * label).astype(np.uint8)).save(buffer, kind, quality=95)
    return buffer.getvalue()


def class_folders(root: Path, each: int = 10, classes: Sequence[str] = CLASSES, shade: int = 60) -> Path:
    """`root/<class>/<class>_<i>.jpg`."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            (root / name / f"{name}_{i}.jpg").write_bytes(image_bytes(label, i, shade=shade))
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


def checkpoint(run: Path, step: int, seed: int = 0, steps: int = 20) -> str:
    """A committed checkpoint of a tiny autoencoder, with the run's config.json and metrics.jsonl."""
    url = commit.checkpoint_url(str(run), step)
    Path(url).mkdir(parents=True)
    torch.manual_seed(seed + step)
    state = MaskedAutoencoder(MODEL).state_dict()
    file = f"{url}/{commit.WEIGHTS}"
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, file)
    config = {"model": dataclasses.asdict(MODEL), "train": {"steps": steps}}
    storage.write_json(str(run / "config.json"), config)
    lines = [json.dumps({"step": s, "loss": 1.0 - s / 100}) for s in range(1, steps + 1)]
    storage.write_text(str(run / "metrics.jsonl"), "\n".join(lines) + "\n")
    commit.write_commit(
        commit.Commit(
            url=url,
            step=step,
            samples=step * 8,
            world_size=1,
            zero_stage=0,
            precision="fp32",
            batch_digest="0",
            time="2026-01-01T00:00:00Z",
            config=config,
            files={commit.WEIGHTS: storage.file_info(file)},
        )
    )
    return url


def evaluated(root: Path, checkpoint: str, *overrides: str) -> Path:
    """`retfound evaluate` of a checkpoint on `root/set`; gives the folder of its results."""
    config = root / "evaluate.toml"
    config.write_text(
        f'checkpoint = "{checkpoint}"\n[data]\npath = "{root / "set"}"\n[out]\nurl = "{root / "out"}"\n'
    )
    assert evaluate_command(str(config), [*TINY, *overrides], quiet=True) == 0
    return root / "out"


def predictions(
    seed: int,
    images: int = 90,
    patients: int = 30,
    copies: int = 1,
    absent: Sequence[int] = (),
    pictures: dict[str, Any] | None = None,
) -> Evaluation:
    """An evaluation of three classes by a classifier that is often right; some classes may have no image."""
    draw = np.random.default_rng(seed)
    held = [c for c in range(3) if c not in absent]
    labels_N = np.array([held[i % len(held)] for i in range(images)], dtype=np.int64)
    p_NC = draw.dirichlet(np.ones(3), images) + 0.8 * np.eye(3)[labels_N] * draw.random((images, 1))
    p_NC /= p_NC.sum(1, keepdims=True)
    owner = [f"p{i % patients}" for i in range(images)]
    labels_N, p_NC = np.repeat(labels_N, copies), np.repeat(p_NC, copies, axis=0)
    owners = tuple(np.repeat(owner, copies).tolist())
    keys = tuple(f"{i}.jpg" for i in range(len(labels_N)))
    scored = metrics.evaluate(labels_N, p_NC, CLASSES)
    _, units_N = bootstrap.units_of(owners, keys)
    spans = bootstrap.intervals(bootstrap.scores(labels_N, p_NC, bootstrap.resample(units_N, 50, 0)))
    counts = {c: int((labels_N == i).sum()) for i, c in enumerate(CLASSES)}
    tree = {
        **scored,
        "ci95": spans,
        "classes": list(CLASSES),
        "bootstrap": {"unit": "patient", "units": patients, "resamples": 50},
        "seeds": [0],
        "per_seed": [{"seed": 0, "epoch": 2, "legacy": scored["legacy"], "macro": scored["macro"]}],
        "over_seeds": {"macro": {"auroc": {"mean": 0.9, "std": None}}},
        "checkpoint": {"kind": "none", "url": "none", "step": None, "samples": None, "sha256": "none"},
        "split": {
            "by": "patient",
            **{part: len(labels_N) for part in ("train", "val", "test")},
            "patients": dict.fromkeys(("train", "val", "test"), patients),
            "per_class": {"test": counts},
        },
        "patients": patients,
        "skipped": [],
        "warnings": [],
        "data": {"path": "a/set", "fingerprint": "0"},
        "versions": {"python": "3"},
        "seconds": 1.0,
        "config": {"finetune": {"epochs": 2}},
    }
    history = [
        {"seed": 0, "epoch": e, "train_loss": 1 / e, "lr": 0.1, "val_loss": 1 / e, "val_auroc": 1 - 0.5 / e}
        for e in (1, 2)
    ]
    return Evaluation(tree, keys, owners, labels_N, p_NC, history, pictures or {})
