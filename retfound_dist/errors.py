"""One exception class for each kind of problem that a user can meet.

Every message says what happened, where, and what to do. `cli.py` prints it on one line and exits with
`exit_code`.
"""


class RetfoundError(Exception):
    """Base class of all errors that are explained in one line."""

    exit_code = 2
    is_permanent = True
    """Whether another start would fail in the same way. Then a scheduler need not restart the job."""


class ConfigError(RetfoundError):
    """A config file, key or value that cannot be used."""


class StorageError(RetfoundError):
    """A URL that cannot be read or written."""

    is_permanent = False


class RecordError(RetfoundError):
    """A JSON file that is damaged: truncated, empty, with wrong types, or without a required key."""


class FormatError(RecordError):
    """A JSON file of a format that this version does not read. The file is not damaged."""


class DataError(RetfoundError):
    """Images, folders or shards that cannot be used as they are."""


class ImageError(DataError, ValueError):
    """An image file that is damaged, is not an image, or cannot be decoded correctly."""


class ManifestError(DataError):
    """A shard set whose manifest is missing, invalid or of another format."""


class CheckpointError(RetfoundError):
    """A checkpoint that is missing, uncommitted or damaged."""


class SaveError(CheckpointError):
    """A checkpoint that could not be saved because a store or a disk failed. The run itself has no error."""

    is_permanent = False


class WeightsError(RetfoundError):
    """A weights file that does not contain the requested encoder."""


class RunConflictError(RetfoundError):
    """A run folder that already contains another run."""


class FaultsFoundError(RetfoundError):
    """A check that was completed and found faults. The exit code is 1, not 2."""

    exit_code = 1


class DeviceError(RetfoundError):
    """GPUs of one host that cannot be used. The other hosts of a run do not have this error."""


class TrainingError(RetfoundError):
    """A run that cannot continue."""
