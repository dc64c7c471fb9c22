"""Versions of what is installed, without importing it."""

import platform
import subprocess
import sys

import numpy

from retfound_dist.runtime.versions import installed


def test_versions_are_those_that_the_packages_give_themselves() -> None:
    assert installed("numpy") == {"python": platform.python_version(), "numpy": numpy.__version__}


def test_a_package_that_is_not_installed_is_left_out() -> None:
    assert list(installed("no-such-package-here", "numpy")) == ["python", "numpy"]


def test_the_packages_are_not_imported() -> None:
    code = (
        "import sys; from retfound_dist.runtime.versions import installed; installed('torch', 'numpy'); "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
