"""Versions of installed packages, without importing them."""

from __future__ import annotations

import platform
from importlib import metadata


def installed(*packages: str) -> dict[str, str]:
    """Version by package name, Python's first. Packages that are not installed are left out."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            # Importing torch for its `__version__` would take seconds.
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
