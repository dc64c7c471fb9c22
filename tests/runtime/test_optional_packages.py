"""A missing package of an extra is one line with the command that installs it."""

import re
import sys

import pytest

from retfound_dist import cli
from retfound_dist.errors import ConfigError
from retfound_dist.runtime.optional_packages import requires_extra


def test_a_missing_package_is_named_with_its_extra_and_what_else_helps() -> None:
    wanted = "--out x.parquet needs no_such_package: pip install 'retfound-dist[parquet]', or write .npz"
    with pytest.raises(ConfigError, match=re.escape(wanted)):
        with requires_extra("--out x.parquet", "parquet", "write .npz"):
            import no_such_package  # type: ignore[import-not-found]  # noqa: F401


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="elsewhere"):
        with requires_extra("a command", "parquet"):
            raise ValueError("elsewhere")


def test_the_dashboard_without_its_packages_ends_with_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "retfound_dist.runs.dashboard", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["dashboard", "runs"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("retfound dashboard needs uvicorn: pip install 'retfound-dist[dashboard]'")
