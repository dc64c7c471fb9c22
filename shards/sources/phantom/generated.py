"""The phantom as a source: scans that are drawn when they are read."""

from __future__ import annotations

from functools import partial

from retfound_dist.config.schema import Phantom
from shards.images.scan import Scan
from shards.sources.devices.volume import eye_of
from shards.sources.phantom import phantom as corpus
from shards.sources.phantom.truth import truth_fields


def list_generated(config: Phantom, name: str = "") -> list[Scan]:
    """Lists every scan of the generated corpus, in its order."""
    phantom_scans = corpus.list_scans(
        patients=config.patients,
        volumes_per_patient=config.volumes,
        slices_per_volume=config.slices,
        lesion_slices=config.lesion_slices,
        seed=config.seed,
    )
    return [
        Scan(
            key=scan.key,
            origin=scan.key,
            source=name or "phantom",
            read=partial(corpus.render, scan, seed=config.seed, height=config.height, width=config.width),
            label=scan.label,
            patient=scan.patient,
            eye=eye_of(scan.eye),
            volume=scan.volume,
            slice=scan.slice,
            extra_fields=partial(truth_fields, scan, seed=config.seed, width=config.width),
        )
        for scan in phantom_scans
    ]
