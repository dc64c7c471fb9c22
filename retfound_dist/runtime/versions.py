"""Which versions are installed, without importing what they are of."""

from __future__ import annotations

import platform
from importlib import metadata


def installed(*packages: str) -> dict[str, str]:
    """Version by name, Python's first; a package that is not there is left out."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            # Importing torch for its `__version__` would take seconds.
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
