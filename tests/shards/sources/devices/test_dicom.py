"""DICOM of every kind that devices and archives write: the scan, upright and not inverted, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from retfound_dist.cli import main
from retfound_dist.errors import DataError
from shards.images.preparation import from_pixels
from shards.sources.devices.device import list_device
from shards.sources.devices.volume import LeftAside, pseudonym
from shards.sources.devices.volume_formats import read_volumes
from tests.shards.device_files import FIRST, NAME, NUMBER, SECRETS, scan_stack, write_dicom

STACK = scan_stack(3)
DEEP = STACK.astype(np.uint16)


def read(path: Path) -> NDArray[np.uint8]:
    """(n, H, W) of a file with one volume."""
    (volume,) = read_volumes(str(path))
    return np.stack([from_pixels(scan) for scan in volume.slices])


def change(path: Path, **more: Any) -> Path:
    """Set fields of a file; None takes one out."""
    file = dcmread(path)
    for name, value in more.items():
        if value is None:
            del file[name]
        else:
            setattr(file, name, value)
    file.save_as(path)
    return path


def scaled_like(stack: NDArray[Any]) -> NDArray[np.float64]:
    return np.clip(stack * (255 / np.percentile(stack, 99.9)), 0, 255)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_monochrome1_shows_the_scan_and_not_its_negative(tmp_path: Path, bits: int) -> None:
    deep = STACK if bits == 8 else DEEP * 2 ** (bits - 8)
    white = (2**bits - 1 - deep).astype(deep.dtype)
    path = write_dicom(tmp_path / "a.dcm", white, PhotometricInterpretation="MONOCHROME1")
    change(path, BitsStored=bits, HighBit=bits - 1)
    wanted = STACK if bits == 8 else scaled_like(deep)
    assert np.abs(read(path).astype(float) - wanted).max() <= 1


def test_signed_pixels_are_right_both_ways_round(tmp_path: Path) -> None:
    signed = (DEEP * 100 - 12000).astype(np.int16)
    for pixels, kind in ((signed, "MONOCHROME2"), (-1 - signed, "MONOCHROME1")):
        path = write_dicom(tmp_path / "a.dcm", pixels, PixelRepresentation=1, PhotometricInterpretation=kind)
        assert np.corrcoef(read(path).ravel(), STACK.ravel())[0, 1] > 0.999


def test_floating_point_pixels_are_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    pixels = (STACK.astype("<f4") / 255).tobytes()
    change(path, BitsAllocated=32, FloatPixelData=pixels, PixelData=None, BitsStored=None, HighBit=None)
    assert np.abs(read(path).astype(float) - scaled_like(STACK)).max() <= 1


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("colours", ["RGB", "YBR_FULL"])
def test_colour_is_rgb_in_either_planar_configuration(tmp_path: Path, planar: int, colours: str) -> None:
    shown = np.stack([STACK, STACK // 2, 255 - STACK], axis=-1)
    held = (
        shown
        if colours == "RGB"
        else np.stack([np.asarray(Image.fromarray(f).convert("YCbCr")) for f in shown])
    )
    stored = np.moveaxis(held, -1, 1) if planar else held
    path = write_dicom(tmp_path / "a.dcm", np.ascontiguousarray(held), SamplesPerPixel=3)
    change(
        path, PhotometricInterpretation=colours, PlanarConfiguration=planar,
        PixelData=np.ascontiguousarray(stored).tobytes(),
    )  # fmt: skip
    assert np.abs(read(path).astype(int) - shown).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colour_goes_through_its_table(tmp_path: Path, bits: int) -> None:
    table = np.random.default_rng(0).permutation(256).astype(np.uint8)
    stored = np.argsort(table).astype(np.uint8)[STACK]  # the table undoes this
    path = write_dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation="PALETTE COLOR")
    entries = table.astype(np.uint16) * 257 if bits == 16 else table
    for colour in ("Red", "Green", "Blue"):
        file = dcmread(path)
        file.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, bits])
        file.add_new(f"{colour}PaletteColorLookupTableData", "OW", entries.tobytes())
        file.save_as(path)
    assert (read(path) == STACK).all()


def test_a_window_and_a_rescale_are_left_aside_and_said(tmp_path: Path) -> None:
    plain = read(write_dicom(tmp_path / "a.dcm", DEEP * 16))
    path = write_dicom(tmp_path / "b.dcm", DEEP * 16, WindowCenter=100, WindowWidth=50)
    change(path, RescaleSlope=3, RescaleIntercept=-1000)
    assert (read(path) == plain).all()
    assert read_volumes(str(path))[0].not_applied == ("window", "rescale")
    notes = list_device(str(tmp_path)).notes
    assert notes[1] == (
        "left aside: window or rescale of 1 file (rescale 1, window 1); docs/datasets.md says why"
    )


def test_a_negative_rescale_slope_turns_the_picture_over(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", 255 - STACK, RescaleSlope=-1, RescaleIntercept=255)
    assert (read(path) == STACK).all()


def test_padding_is_dark_whatever_its_value(tmp_path: Path) -> None:
    padded = (DEEP * 16).astype(np.int16)
    padded[:, :, :8] = -32000
    path = write_dicom(tmp_path / "a.dcm", padded, PixelRepresentation=1)
    file = dcmread(path)
    file.add_new("PixelPaddingValue", "SS", -32000)
    file.save_as(path)
    found = read(path)
    assert found[:, :, :8].max() <= found[:, :, 8:].min() + 1
    assert np.corrcoef(found[:, :, 8:].ravel(), STACK[:, :, 8:].ravel())[0, 1] > 0.999
    assert np.percentile(found[:, :, 8:], 1) < 10  # the padding takes no part of the 256 levels
    assert found.max() == 255


def test_pixels_of_one_bit_are_refused_as_a_mask(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.packbits(STACK > 90, axis=-1))
    change(path, BitsAllocated=1, BitsStored=1, HighBit=0, Columns=64)
    with pytest.raises(DataError, match="1 bit, which are a mask"):
        read(path)


def compressed(path: Path, syntax: str, frames: list[bytes], **more: Any) -> Path:
    """A file whose pixels are these streams."""
    file = dcmread(path)
    file.file_meta.TransferSyntaxUID = uid.UID(syntax)
    file.PixelData = encapsulate(frames)
    file["PixelData"].is_undefined_length = True
    for name, value in more.items():
        setattr(file, name, value)
    file.save_as(path)
    return path


def jpeg_frames(stack: NDArray[Any], **options: Any) -> list[bytes]:
    return [bytes(imagecodecs.jpeg8_encode(frame, level=95, **options)) for frame in stack]


def streams(stack: NDArray[Any], kind: str) -> list[bytes]:
    bits = 8 * stack.dtype.itemsize if kind != "extended" else 12
    make: dict[str, Any] = {
        "extended": lambda f: imagecodecs.jpeg8_encode(f, level=97, bitspersample=bits),
        "lossless": lambda f: imagecodecs.jpeg8_encode(f, lossless=True, bitspersample=bits),
        "ls": imagecodecs.jpegls_encode,
        "j2k": lambda f: imagecodecs.jpeg2k_encode(f, level=0, reversible=True, codecformat="j2k"),
    }
    return [bytes(make[kind](frame)) for frame in stack]


SYNTAXES = [
    (uid.JPEGExtended12Bit, "extended", 12),
    (uid.JPEGLossless, "lossless", 8),
    (uid.JPEGLosslessSV1, "lossless", 8),
    (uid.JPEGLosslessSV1, "lossless", 16),
    (uid.JPEGLSLossless, "ls", 8),
    (uid.JPEGLSLossless, "ls", 16),
    (uid.JPEG2000Lossless, "j2k", 8),
    (uid.JPEG2000Lossless, "j2k", 16),
]


@pytest.mark.parametrize(("syntax", "kind", "bits"), SYNTAXES)
def test_every_usual_compression_decodes_in_a_plain_install(
    tmp_path: Path, syntax: str, kind: str, bits: int
) -> None:
    stack = STACK if bits == 8 else DEEP * 2 ** (bits - 8)
    path = write_dicom(tmp_path / "a.dcm", stack, BitsStored=bits, HighBit=bits - 1)
    compressed(path, syntax, streams(stack, kind))
    wanted = STACK if bits == 8 else scaled_like(stack)
    assert np.abs(read(path).astype(float) - wanted).max() <= (6 if kind == "extended" else 1)


def test_rle_deflated_and_jpeg_of_8_bit_decode_too(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    file = dcmread(path)
    file.compress(uid.RLELossless, encoding_plugin="pydicom")
    file.save_as(tmp_path / "rle.dcm")
    assert (read(tmp_path / "rle.dcm") == STACK).all()
    file = dcmread(path)
    file.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    file.save_as(tmp_path / "deflated.dcm")
    assert (read(tmp_path / "deflated.dcm") == STACK).all()
    compressed(path, uid.JPEGBaseline8Bit, jpeg_frames(STACK))
    assert np.corrcoef(read(path).ravel(), STACK.ravel())[0, 1] > 0.99


def test_monochrome1_is_inverted_in_compressed_files_too(tmp_path: Path) -> None:
    white = 4095 - DEEP * 16
    path = write_dicom(
        tmp_path / "a.dcm", white, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11
    )
    compressed(path, uid.JPEGLSLossless, streams(white, "ls"))
    assert np.abs(read(path).astype(float) - scaled_like(DEEP * 16)).max() <= 1


def test_a_compression_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = compressed(write_dicom(tmp_path / "a.dcm", STACK), uid.MPEG2MPML, [b"\0\0\1\xb3" * 9])
    with pytest.raises(DataError, match=r"compressed as MPEG2 .*convert it"):
        read(path)


@pytest.mark.parametrize("kept", [2, 4])
def test_pixel_data_of_fewer_or_more_frames_than_promised_are_refused(tmp_path: Path, kept: int) -> None:
    path = write_dicom(tmp_path / "a.dcm", scan_stack(kept), NumberOfFrames=3)
    with pytest.raises(DataError, match=f"{kept} frames of 64x48, and NumberOfFrames says 3"):
        read(path)
    path = write_dicom(tmp_path / "b.dcm", scan_stack(kept), NumberOfFrames=3)
    compressed(path, uid.JPEGBaseline8Bit, jpeg_frames(scan_stack(kept)))
    with pytest.raises(DataError, match=f"holds {kept} compressed frames, and NumberOfFrames says 3"):
        read(path)


def test_half_a_frame_and_a_frame_cut_short_are_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    change(path, PixelData=STACK.tobytes()[: STACK.nbytes // 2])
    with pytest.raises(DataError, match=r"1\.5 frames"):
        read(path)
    frames = jpeg_frames(STACK)
    for syntax, broken in (
        (uid.JPEGBaseline8Bit, frames[1][:-300] + b"\xff\xd9"),  # Pillow fills the gap with grey
        (uid.JPEGBaseline8Bit, frames[1][:-300]),
        (uid.JPEGLSLossless, streams(STACK, "ls")[1][:-300]),
    ):
        good = frames if syntax == uid.JPEGBaseline8Bit else streams(STACK, "ls")
        path = compressed(write_dicom(tmp_path / "b.dcm", STACK), syntax, [good[0], broken, good[2]])
        with pytest.raises(DataError, match=r"frame .*2 of 3"):
            read(path)


def test_a_file_that_ends_in_its_pixels_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError):
        read(path)


def test_a_compressed_file_cut_short_is_an_error_and_not_left_aside(tmp_path: Path) -> None:
    path = compressed(write_dicom(tmp_path / "a.dcm", STACK), uid.JPEGLSLossless, streams(STACK, "ls"))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError) as caught:
        read(path)
    assert not isinstance(caught.value, LeftAside)


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_compressed_colour_is_rgb(tmp_path: Path, syntax: str) -> None:
    shown = np.stack([STACK, STACK // 2, 255 - STACK], axis=-1)
    path = write_dicom(tmp_path / "a.dcm", shown, SamplesPerPixel=3, PlanarConfiguration=0)
    kind = {uid.JPEGLosslessSV1: "lossless", uid.JPEGLSLossless: "ls", uid.JPEG2000Lossless: "j2k"}[syntax]
    colours = "YBR_RCT" if kind == "j2k" else "RGB"
    compressed(path, syntax, streams(shown, kind), PhotometricInterpretation=colours)
    assert (read(path) == shown).all()


def test_missing_pixels_and_sizes_are_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    with pytest.raises(DataError, match="holds no pixel data"):
        read(change(path, PixelData=None))
    with pytest.raises(DataError, match="says no Rows"):
        read(change(path, Rows=None))


def laterality(eye: str) -> Dataset:
    """A functional group of frames of one eye."""
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = eye
    group.FrameAnatomySequence = Sequence([anatomy])
    return group


def test_the_eye_comes_from_wherever_a_device_writes_it_and_both_is_none(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)

    def eyes(**more: Any) -> list[str | None]:
        return [volume.eye for volume in read_volumes(str(change(path, **more)))]

    assert eyes() == ["L"]
    assert eyes(ImageLaterality="B") == [None]
    assert eyes(ImageLaterality=None) == [None]
    assert eyes(Laterality="R") == ["R"]
    assert eyes(Laterality=None, SharedFunctionalGroupsSequence=Sequence([laterality("R")])) == ["R"]
    each = [laterality("L") for _ in STACK]
    assert eyes(SharedFunctionalGroupsSequence=None, PerFrameFunctionalGroupsSequence=Sequence(each)) == ["L"]


def test_frames_of_two_eyes_are_two_volumes(tmp_path: Path) -> None:
    each = Sequence([laterality(eye) for eye in "RLR"])
    path = write_dicom(tmp_path / "a.dcm", STACK, PerFrameFunctionalGroupsSequence=each)
    right, left = read_volumes(str(change(path, ImageLaterality=None)))
    assert (right.eye, left.eye) == ("R", "L")
    assert (np.stack(right.slices) == STACK[[0, 2]]).all()
    assert (left.slices[0] == STACK[1]).all()


def test_dicom_is_found_under_any_name_and_without_its_preamble(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = ("a.dcm", "b.DCM", "c.dicom", "d.ima", "IM00001", "f.0003", "g.img", "h.dat")
    for number, name in enumerate(names):
        write_dicom(folder / name, scan_stack(1, first=number))
    whole = write_dicom(folder / "bare.dcm", scan_stack(1, first=50)).read_bytes()
    (folder / "bare.dcm").write_bytes(whole[132:])
    (folder / "noise").write_bytes(bytes(500))
    found = list_device(str(folder))
    assert sum(scan.slice is not None for scan in found.scans) == len(names) + 1
    assert not [scan for scan in found.scans if scan.slice is None]
    assert "passed over: 1 file, no device file by name or content: 1 others" in found.notes
    assert not any(name.split(".")[0] in scan.origin for scan in found.scans for name in ("IM00001", "noise"))


def test_what_is_no_dicom_is_refused_without_a_preamble(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"hello" * 100)
    with pytest.raises(DataError, match="is no DICOM file"):
        read(tmp_path / "a.dcm")


def test_other_modalities_and_directories_are_left_aside_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_dicom(folder / "a.dcm", STACK)
    for name in ("b.dcm", "c.dcm"):
        write_dicom(folder / name, STACK[:1], modality="OP")
    write_dicom(folder / "d.dcm", STACK[:1], modality=f"{NAME}")
    path = write_dicom(folder / "DICOMDIR", STACK[:1])
    file = dcmread(path)
    file.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    file.save_as(path)
    with pytest.raises(LeftAside):
        read_volumes(str(path))
    assert main(["pack", str(config(tmp_path)), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "left aside: 2 files: DICOM of modality OP, not OPT" in said
    assert "1 file: a DICOMDIR" in said
    assert "1 file: DICOM of modality (unknown), not OPT" in said
    for path in folder.iterdir():
        path.unlink() if path.name == "a.dcm" else None
    assert main(["pack", str(config(tmp_path)), "--dry-run"]) == 2
    assert "modality OP, not OPT" in capsys.readouterr().err


def config(folder: Path) -> Path:
    path = folder / "c.toml"
    path.write_text(f'[source]\nkind = "device"\npath = "{folder}/in"\n[out]\nurl = "{folder}/out"\n')
    return path


def test_a_library_s_own_words_are_kept_and_nobody_s_name(tmp_path: Path) -> None:
    """The folder, the number and the name stand in the text that pydicom raises here."""
    folder = tmp_path / f"{NAME}_{FIRST}"
    folder.mkdir()
    path = write_dicom(folder / "a.dcm", STACK, PhotometricInterpretation=f"{FIRST} {NUMBER}"[:16])
    with pytest.raises(DataError) as caught:
        read(path)
    said = str(caught.value)
    assert "Photometric Interpretation" in said
    for secret in (*SECRETS, str(tmp_path)):
        assert secret not in said


def test_the_patient_of_every_kind_of_file_is_the_digest_of_the_number(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    assert read_volumes(str(path))[0].patient == pseudonym(NUMBER)
    assert read_volumes(str(change(path, PatientID="")))[0].patient is None


def test_a_file_that_names_no_transfer_syntax_is_read_as_it_lies(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STACK)
    file = dcmread(path)
    whole, name = path.read_bytes(), file.file_meta.TransferSyntaxUID
    element = b"\x02\0\x10\0UI" + (20).to_bytes(2, "little") + str(name).encode().ljust(20, b"\0")
    assert element in whole
    path.write_bytes(
        whole.replace(element, b"\x02\0\x13\0SH" + element[6:8] + b"some other element".ljust(20))
    )
    assert (read(path) == STACK).all()
