"""Says how to install a package that only one format or command needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from retfound_dist.errors import ConfigError


@contextmanager
def requires_extra(purpose: str, extra: str, alternative: str = "") -> Iterator[None]:
    """Around the imports of an extra of pyproject.toml: turns ImportError into a ConfigError.

    `purpose`: what needs the package, the subject of the message. `alternative`: what to do without it.
    """
    try:
        yield
    except ImportError as error:
        rest = f", or {alternative}" if alternative else ""
        package = error.name or str(error)
        raise ConfigError(f"{purpose} needs {package}: pip install 'retfound-dist[{extra}]'{rest}") from error


def import_parquet(alternative: str) -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet; ConfigError that says how to install them, or the alternative."""
    with requires_extra("--out *.parquet", "parquet", alternative):
        import pyarrow
        import pyarrow.parquet
    return pyarrow, pyarrow.parquet
