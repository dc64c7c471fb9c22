"""Hostile files: mutated copies of every kind of input, read through its adapter, end in scans or clean errors."""

from __future__ import annotations

import io
import resource
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.config.schema import PackImage, Phantom, Source
from retfound_dist.errors import DataError
from shards.images.scan import Scan
from shards.sources.adapters import ADAPTERS, open_source
from shards.sources.devices import device
from shards.write.packed_sample import make_sample
from tests.shards.device_files import write_all
from tests.shards.pack_inputs import write_image
from tests.shards.published_layouts import write_duke, write_goals, write_labels_xlsx, write_octa500

PICTURES = ("jpg", "png", "tif", "bmp", "webp")


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """No mutant gets more than so many gigabytes, whatever its header promises."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 6_000_000_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def lay_out(root: Path, test_data: Path) -> dict[str, list[Path]]:
    """A small sound source for every adapter; gives the files that are mutated, by kind."""
    victims: dict[str, list[Path]] = {}
    folder = root / "folder"
    victims["folder"] = [write_image(folder / "A" / f"a.{end}", 3) for end in PICTURES]
    (folder / "manifest.csv").write_text(
        "file,label,patient,split\n" + "".join(f"A/a.{end},A,p1,train\n" for end in PICTURES)
    )
    victims["folder"].append(folder / "manifest.csv")
    write_image(root / "csv" / "x" / "1.png")
    (root / "csv" / "list.csv").write_text("file,label,patient,slice\nx/1.png,A,p1,3\nx/2.png,B,p2,4\n")
    victims["csv"] = [root / "csv" / "list.csv", root / "csv" / "x" / "1.png"]
    victims["octid"] = [write_image(root / "octid" / "NORMAL" / "NORMAL1.jpeg")]
    victims["octdl"] = [write_image(root / "octdl" / "AMD" / "amd_5_1.jpg")]
    write_image(root / "octdl" / "NO" / "no_6_1.jpg", 1)
    victims["kermany"] = [write_image(root / "kermany" / "test" / "CNV" / "CNV-7-1.jpeg")]
    write_octa500(root / "octa500")
    write_labels_xlsx(root / "octa500" / "Text labels.xlsx")
    victims["octa500"] = [root / "octa500" / "Text labels.xlsx", root / "octa500/OCTA_3mm/OCT/10301/1.bmp"]
    write_duke(root / "duke_dme", (1,), 3)
    victims["duke_dme"] = [root / "duke_dme" / "Subject_01.mat"]
    write_goals(root / "goals")
    victims["goals"] = [root / "goals" / "Train_GC_GT.csv", root / "goals/Train/Layer_Masks/0001.png"]
    for number in (2, 3):
        (root / "goals/Train/Image" / f"{number:04d}.png").unlink()
    victims["device"] = list(write_all(root / "device").values())
    shutil.copytree(test_data / "device" / "heyex_xml", root / "device" / "xml")
    victims["device"].append(root / "device" / "xml" / "test_dummy.xml")
    victims["topcon"] = [write_image(root / "topcon" / "train" / "a.png")]
    for end in (".fda", ".fds"):
        victims["topcon"].append(root / "topcon" / "test" / f"b{end}")
        victims["topcon"][-1].parent.mkdir(exist_ok=True)
        shutil.copy(root / "device" / f"a{end}", victims["topcon"][-1])
    assert victims.keys() == ADAPTERS.keys()
    return victims


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped, overwritten with extremes, doubled or spliced; every other time near its beginning."""
    out = bytearray(data)
    near = len(out) if rng.integers(0, 2) else min(len(out), 300)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(1, near)))
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


def read_alone(kind: str, root: Path, victim: Path) -> int:
    """What packing does with a source; anything but clean results and errors gets out. Gives the samples."""
    device._volume_cache.clear()
    if kind == "device":  # the other files of the folder are sound and large: not read again for each mutant
        scans = device.list_file(str(root / kind), str(victim.relative_to(root / kind)), 1, kind)
    else:
        path, said = root / kind / ("list.csv" if kind == "csv" else ""), ""
        try:
            scans = list(open_source(Source(kind=kind, path=str(path)), Phantom()).scans)
        except DataError as error:
            scans, said = [], str(error)
        assert "\n" not in said
    kept = 0
    for scan in ([scan for scan in scans if victim.name in scan.origin] or scans)[:2]:
        result = make_sample(scan, image=PackImage())
        reason = getattr(result, "reason", "")
        assert "\n" not in reason
        kept += not reason
    return kept


def storm(root: Path, test_data: Path, rounds: int, seed: int) -> tuple[int, int]:
    """`rounds` mutants of each victim; gives how many there were, and samples that came of them."""
    rng, count, kept = np.random.default_rng(seed), 0, 0
    victims = lay_out(root, test_data)
    for kind, files in victims.items():
        for file in files:
            sound = file.read_bytes()
            assert read_alone(kind, root, file), f"{file.name} of {kind} is no sound file to begin with"
            for _ in range(rounds):
                file.write_bytes(mutated(sound, rng))
                try:
                    kept += read_alone(kind, root, file)
                except Exception as error:
                    raise AssertionError(f"a mutated {file.name} of {kind} got through: {error!r}") from error
                count += 1
            file.write_bytes(sound)
    return count, kept


def test_some_hundred_mutated_files_of_every_adapter_end_in_clean_errors(
    tmp_path: Path, test_data: Path
) -> None:
    count, kept = storm(tmp_path, test_data, rounds=8, seed=0)
    assert count == 8 * 28
    assert kept


@pytest.mark.slow
def test_ten_thousand_mutated_files_of_every_adapter_end_in_clean_errors(
    tmp_path: Path, test_data: Path
) -> None:
    assert storm(tmp_path, test_data, rounds=360, seed=1)[0] == 10_080


def test_a_picture_that_unpacks_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(buffer, "PNG")
    result = make_sample(
        Scan(key="k", origin="o", source="s", read=partial(bytes, buffer.getvalue())), image=PackImage()
    )
    assert "more than" in str(getattr(result, "reason", ""))


def test_a_table_that_unpacks_to_gigabytes_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    write_octa500(tmp_path / "o")
    with zipfile.ZipFile(tmp_path / "o" / "Text labels.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(300_000_000))
    monkeypatch.setenv("RETFOUND_TABLE_GB", "0.2")
    with pytest.raises(DataError, match="unpacks to more than"):
        open_source(Source(kind="octa500", path=str(tmp_path / "o")), Phantom())


def test_xml_that_unfolds_into_gigabytes_is_refused(tmp_path: Path) -> None:
    layers = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    (tmp_path / "a.xml").write_text(f'<!DOCTYPE x [<!ENTITY a0 "ha">{layers}]><HEDX>&a11;</HEDX>')
    (scan,) = device.list_device(str(tmp_path)).scans
    with pytest.raises(DataError, match=r"not a readable \.xml"):
        scan.read()


def test_a_matlab_object_or_pickle_is_never_run(tmp_path: Path) -> None:
    import pickle

    ran = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (ran,)  # type: ignore[return-value]

    for end in device.READERS:
        (tmp_path / f"a{end}").write_bytes(pickle.dumps(Hostile()))
    found = device.list_device(str(tmp_path)).scans
    assert all(scan.slice is None for scan in found)
    assert not ran.exists()
