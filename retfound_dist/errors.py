"""One exception class for each kind of trouble a person can meet.

Every message says what happened, where, and what to do. `cli.py` prints it on one line and
leaves with `exit_code`.
"""


class RetfoundError(Exception):
    """Anything this project can explain in one line."""

    exit_code = 2
    lasting = True
    """Whether another start would end the same way, so that a scheduler need not try it."""


class ConfigError(RetfoundError):
    """A config file, key or value that cannot be used."""


class StorageError(RetfoundError):
    """A URL that cannot be read or written."""

    lasting = False


class RecordError(RetfoundError):
    """A JSON file that is damaged: cut, empty, of other types, without a key."""


class FormatError(RecordError):
    """A JSON file of another format than this version reads: nothing is damaged."""


class DataError(RetfoundError):
    """Images, folders or shards that are not what they should be."""


class ImageError(DataError, ValueError):
    """An image file that is damaged, no image, or of a kind that cannot be read right."""


class ManifestError(DataError):
    """A shard set whose manifest is missing, malformed or of another format."""


class CheckpointError(RetfoundError):
    """A checkpoint that is missing, uncommitted or damaged."""


class SaveError(CheckpointError):
    """A checkpoint that could not be saved: a store or a disk failed, and the run itself is good."""

    lasting = False


class WeightsError(RetfoundError):
    """A weights file that does not hold the encoder that was asked for."""


class RunConflictError(RetfoundError):
    """A run folder that already holds another run."""


class FaultsFoundError(RetfoundError):
    """A check that ran to its end and found something wrong; exit 1, not 2."""

    exit_code = 1


class TrainingError(RetfoundError):
    """A run that cannot go on."""
