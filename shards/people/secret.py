"""The secret key of the digests of names: one per user, the same for all packs that belong together.

It is RETFOUND_SALT in the environment, else the file $XDG_CONFIG_HOME/retfound/salt
(~/.config/retfound/salt). The file is created when it is first needed, and only its owner can read it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from retfound_dist.errors import ConfigError

SALT = "RETFOUND_SALT"
GENERATE_COMMAND = "openssl rand -hex 32"
MIN_LENGTH = 16
"""Characters: a shorter secret can be guessed."""


@dataclass(frozen=True, repr=False)
class Secret:
    """The key of all digests. It is never printed or stored in a set; packs compare only its fingerprint."""

    key: bytes
    location: str
    """The environment variable or file it comes from, for messages."""
    is_new: bool = False
    """Whether it was created by this call."""

    def digest(self, kind: str, text: str, length: int = 12) -> str:
        """Returns hex digits of the HMAC-SHA256 of a text. `kind`: a patient and a file get other digests."""
        message = b"\0".join((kind.encode(), text.encode(errors="surrogateescape")))
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:length]

    @property
    def fingerprint(self) -> str:
        """A short digest that shows whether two packs used the same secret."""
        return self.digest("secret", "mark", 8)

    def __repr__(self) -> str:
        """Returns a text without the key."""
        return f"Secret({self.location})"


def find_secret(env: Mapping[str, str] | None = None, *, create: bool = True) -> Secret:
    """Returns the secret of this user. If there is none, creates it, and stores it if `create` is true.

    ConfigError if it is too short, if others can read it, or if it cannot be stored.
    """
    env = os.environ if env is None else env
    from_environment = env.get(SALT, "").strip()
    if from_environment:
        if len(from_environment) < MIN_LENGTH:
            raise ConfigError(
                f"{SALT} has {len(from_environment)} characters and needs at least {MIN_LENGTH}: "
                f"make one with {GENERATE_COMMAND}"
            )
        return Secret(from_environment.encode(), SALT)
    path = secret_path(env)
    if os.path.exists(path):
        return _read_secret(path)
    if not create:
        return Secret(secrets.token_hex(32).encode(), path, is_new=True)
    return _make(path)


def secret_path(env: Mapping[str, str]) -> str:
    """Returns the path of the secret's file."""
    base = env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(base, "retfound", "salt")


def _read_secret(path: str) -> Secret:
    """Reads a secret from a file; ConfigError where others can read it or it is too short."""
    try:
        with open(path) as file:
            # The mode of the open file, because the path may lead to another file by now.
            mode, text = os.fstat(file.fileno()).st_mode, file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the secret for names {path} ({_reason(error)}): set {SALT}"
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"others can read {path}: run chmod 600 {path}, or set {SALT}")
    if len(text) < MIN_LENGTH:
        fault = f"holds no secret of at least {MIN_LENGTH} characters"
        raise ConfigError(f"{path} {fault}: restore it, or set {SALT} (make one with {GENERATE_COMMAND})")
    return Secret(text.encode(), path)


def _make(path: str) -> Secret:
    """Creates the secret's file in one step, so that two packs that start together share one secret."""
    draft, text = f"{path}.{secrets.token_hex(4)}.tmp", secrets.token_hex(32)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w") as file:
            file.write(text + "\n")
            file.flush()
            # On disk before it is used: after a crash the same digests could not be made again.
            os.fsync(handle)
        try:
            # A link fails if another process was faster. A rename would replace the secret it already uses.
            os.link(draft, path)
        except FileExistsError:
            return _read_secret(path)
        finally:
            os.unlink(draft)
    except OSError as error:
        raise ConfigError(
            f"names of people must be replaced by digests, but their secret cannot be stored in {path} "
            f"({_reason(error)}): make one with {GENERATE_COMMAND}, keep it, and set {SALT} to it"
        ) from error
    return Secret(text.encode(), path, is_new=True)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
