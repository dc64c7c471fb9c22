"""One exception class for each kind of trouble a person can meet.

Every message says what happened, where, and what to do. `cli.py` prints it on one line and
leaves with `exit_code`.
"""


class RetfoundError(Exception):
    """Anything this project can explain in one line."""

    exit_code = 2
    lasting = True
    """Whether another start would fail in the same way. A scheduler then need not try it."""


class ConfigError(RetfoundError):
    """A config file, key or value that cannot be used."""


class StorageError(RetfoundError):
    """A URL that cannot be read or written."""

    lasting = False


class RecordError(RetfoundError):
    """A JSON file that is damaged: cut, empty, of other types, without a key."""


class FormatError(RecordError):
    """A JSON file of a format that this version does not read. Nothing is damaged."""


class DataError(RetfoundError):
    """Images, folders or shards that cannot be used as they are."""


class ImageError(DataError, ValueError):
    """An image file that is damaged, no image, or of a kind that cannot be read right."""


class ManifestError(DataError):
    """A shard set whose manifest is missing, malformed or of another format."""


class CheckpointError(RetfoundError):
    """A checkpoint that is missing, uncommitted or damaged."""


class SaveError(CheckpointError):
    """A checkpoint that could not be saved. A store or a disk failed; the run itself is sound."""

    lasting = False


class WeightsError(RetfoundError):
    """A weights file that does not hold the encoder that was asked for."""


class RunConflictError(RetfoundError):
    """A run folder that already holds another run."""


class FaultsFoundError(RetfoundError):
    """A check that ran to its end and found faults. The exit code is 1, not 2."""

    exit_code = 1


class TrainingError(RetfoundError):
    """A run that cannot go on."""
