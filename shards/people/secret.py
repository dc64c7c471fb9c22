"""The secret key of digests of names: the user's own, one for all packs that belong together.

RETFOUND_SALT in the environment, else a file that only its owner can read, made when it is first needed:
$XDG_CONFIG_HOME/retfound/salt (~/.config/retfound/salt)
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
MAKE_ONE = "openssl rand -hex 32"
LEAST = 16
"""Characters: a shorter secret can be found by trying."""


@dataclass(frozen=True, repr=False)
class Secret:
    """The key of all digests. It is never printed or stored in a set; packs compare only its mark."""

    key: bytes
    where: str
    """Where it came from, for people."""
    is_new: bool = False
    """Whether it was made just now."""

    def digest(self, kind: str, text: str, length: int = 12) -> str:
        """Hex digits of the keyed digest (HMAC-SHA256) of a text; `kind` keeps patients and files apart."""
        message = b"\0".join((kind.encode(), text.encode(errors="surrogateescape")))
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:length]

    @property
    def mark(self) -> str:
        """Short digest that shows whether two packs had the same secret."""
        return self.digest("secret", "mark", 8)

    def __repr__(self) -> str:
        """Without the key."""
        return f"Secret({self.where})"


def find_secret(env: Mapping[str, str] | None = None, *, make: bool = True) -> Secret:
    """The secret of this user; made and kept where there is none, with `make=False` made for this once.

    ConfigError where it is too short, readable by others, or cannot be kept.
    """
    env = os.environ if env is None else env
    from_environment = env.get(SALT, "").strip()
    if from_environment:
        if len(from_environment) < LEAST:
            least = f"{LEAST} are the least"
            raise ConfigError(
                f"{SALT} has {len(from_environment)} characters, {least}: make one with {MAKE_ONE}"
            )
        return Secret(from_environment.encode(), SALT)
    path = secret_path(env)
    if os.path.exists(path):
        return _read(path)
    if not make:
        return Secret(secrets.token_hex(32).encode(), path, is_new=True)
    return _make(path)


def secret_path(env: Mapping[str, str]) -> str:
    """Where the secret is kept that was made here."""
    base = env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(base, "retfound", "salt")


def _read(path: str) -> Secret:
    try:
        with open(path) as file:
            # Of the open file: the path may lead to another one by now.
            mode, text = os.fstat(file.fileno()).st_mode, file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the secret for names {path} ({_why(error)}): set {SALT}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{path} can be read by others: chmod 600 {path}, or set {SALT}")
    if len(text) < LEAST:
        fault = f"holds no secret of {LEAST} characters"
        raise ConfigError(f"{path} {fault}: restore it, or set {SALT} ({MAKE_ONE})")
    return Secret(text.encode(), path)


def _make(path: str) -> Secret:
    """A new secret, whole or not there: two packs that begin at once end with one."""
    draft, text = f"{path}.{secrets.token_hex(4)}.tmp", secrets.token_hex(32)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w") as file:
            file.write(text + "\n")
            file.flush()
            # On disk before it is used: digests of a secret that a crash has lost cannot be made again.
            os.fsync(handle)
        try:
            # A link fails where another process was faster; a rename would replace the secret it has used.
            os.link(draft, path)
        except FileExistsError:
            return _read(path)
        finally:
            os.unlink(draft)
    except OSError as error:
        raise ConfigError(
            f"names of people are to be replaced by digests, and their secret cannot be kept in {path} "
            f"({_why(error)}): make one with {MAKE_ONE}, keep it, and set {SALT} to it"
        ) from error
    return Secret(text.encode(), path, is_new=True)


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
