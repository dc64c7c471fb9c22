"""Tests, in folders as the modules they test."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The repository."""
