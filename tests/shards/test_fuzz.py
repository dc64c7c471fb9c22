"""Hostile files: mutated copies of every kind of input end in a scan, or in one clean error."""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pack_inputs import scan_pixels
from PIL import Image
from published_layouts import write_labels_xlsx
from test_device import scan_stack, write_dicom, write_fda

from retfound_dist.errors import DataError
from retfound_dist.schema import PackImage
from shards.record import Scan
from shards.sample import make_sample
from shards.sources.tables import read_table
from shards.sources.volumes import read_volumes

PICTURES, TABLES = (".jpg", ".png", ".tif", ".bmp"), (".csv", ".xlsx")


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """No mutant gets more than so many gigabytes, whatever its header promises."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 6_000_000_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def originals(folder: Path) -> dict[str, bytes]:
    """One small sound file of every kind that can be built."""
    from scipy.io import savemat

    for end in PICTURES:
        Image.fromarray(scan_pixels(3)).save(folder / f"a{end}")
    savemat(folder / "a.mat", {"images": scan_stack(2).transpose(1, 2, 0)}, do_compression=True)
    write_dicom(folder / "a.dcm", scan_stack(2))
    write_fda(folder / "a.fda", scan_stack(2).astype(np.uint16))
    write_labels_xlsx(folder / "a.xlsx")
    (folder / "a.csv").write_text("file,label,patient\nx/1.png,A,p1\nx/2.png,B,p2\n")
    (folder / "a.img").write_bytes(scan_stack(1).tobytes() * 171)
    (folder / "a.oct").write_bytes(bytes(range(256)) * 30)
    (folder / "a.vol").write_bytes(b"HSF-OCT-103\0" + bytes([64, 0, 0, 0, 2, 0, 0, 0, 48, 0, 0, 0]) * 900)
    return {path.suffix: path.read_bytes() for path in sorted(folder.iterdir())}


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped, overwritten with extremes, doubled or spliced."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(1, len(out))))
        match int(rng.integers(0, 6)):
            case 0:
                del out[at:]
            case 1 if out:
                out[min(at, len(out) - 1)] ^= 1 << int(rng.integers(0, 8))
            case 2:
                out[at : at + 4] = b"\xff\xff\xff\x7f"
            case 3:
                out[at : at + 4] = b"\0\0\0\0"
            case 4:
                out[at:at] = out[at : at + 64]
            case _:
                del out[at : at + int(rng.integers(1, 64))]
    return bytes(out)


def read_any(path: Path, data: bytes) -> None:
    """What packing does with a file of this kind; anything but a clean error gets out."""
    if path.suffix in PICTURES:
        scan = Scan(key="k", origin="o", source="s", read=partial(bytes, data))
        result = make_sample(scan, image=PackImage())
        assert "\n" not in str(getattr(result, "reason", ""))
        return
    path.write_bytes(data)
    try:
        _ = read_table(str(path)) if path.suffix in TABLES else read_volumes(str(path))
    except DataError as error:
        said = str(error)
    else:
        said = ""
    assert "\n" not in said


def storm(folder: Path, found: dict[str, bytes], rounds: int, seed: int) -> int:
    """`rounds` mutants of each original; gives how many there were."""
    rng, count = np.random.default_rng(seed), 0
    for _ in range(rounds):
        for end, data in found.items():
            mutant = mutated(data, rng)
            try:
                read_any(folder / f"mutant{end}", mutant)
            except Exception as error:
                raise AssertionError(f"a mutated {end} file got through: {error!r}") from error
            count += 1
    return count


def test_some_hundred_mutated_files_end_in_clean_errors(tmp_path: Path) -> None:
    assert storm(tmp_path, originals(tmp_path), rounds=20, seed=0) == 240


@pytest.mark.slow
def test_ten_thousand_mutated_files_end_in_clean_errors(tmp_path: Path) -> None:
    assert storm(tmp_path, originals(tmp_path), rounds=840, seed=1) == 10_080


@pytest.mark.slow
def test_mutated_files_of_real_devices_end_in_clean_errors(tmp_path: Path, test_data: Path) -> None:
    real = {
        ".vol": (test_data / "device" / "test_volume.vol").read_bytes(),
        ".xml": (test_data / "device" / "heyex_xml" / "test_dummy.xml").read_bytes(),
    }
    for picture in (test_data / "device" / "heyex_xml").glob("B*.tif"):
        (tmp_path / picture.name).write_bytes(picture.read_bytes())
    assert storm(tmp_path, real, rounds=300, seed=2) == 600


def test_a_picture_that_unpacks_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(buffer, "PNG")
    result = make_sample(
        Scan(key="k", origin="o", source="s", read=partial(bytes, buffer.getvalue())), image=PackImage()
    )
    assert "more than" in str(getattr(result, "reason", ""))
