"""DICOM of modality OPT: frames as 8-bit B-scans, with patient and eye.

Known by its content (`DICM` after 128 bytes), or by `.dcm`, `.dicom` or `.ima` where that is missing.

    MONOCHROME1        inverted, by the bits that are stored; so are files with a negative rescale slope
    PALETTE COLOR      through its table; YBR and RGB as RGB, in either planar configuration
    8 bit              as it is; deeper, signed and floating point scaled over the volume as
                       `retfound_dist.images.gray_scaling` says
    padding            (Pixel Padding Value) as dark as the darkest pixel
    window, rescale    left aside, and said: they differ from file to file and are meant for a screen. The
                       scaling above gives the same picture for any positive slope and intercept
    frames             as many as NumberOfFrames says, whole, or the file is refused
    eye                ImageLaterality, Laterality, or the frames' own; frames of two eyes are two volumes
"""

from shards.sources.devices.dicom_files import ENDS, has_preamble, read_dicom

__all__ = ["ENDS", "has_preamble", "read_dicom"]
