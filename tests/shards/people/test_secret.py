"""The secret behind digests: the user's, or made and kept where only its owner reads it."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from retfound_dist.errors import ConfigError
from shards.people.secret import find_secret


def test_a_secret_of_the_environment_is_taken_and_one_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    env = {"RETFOUND_SALT": "0123456789abcdef", "HOME": str(tmp_path)}
    secret = find_secret(env)
    assert secret.digest("patient", "a") == find_secret(env).digest("patient", "a")
    assert secret.digest("patient", "a") != secret.digest("volume", "a")
    assert "0123456789abcdef" not in repr(secret)
    with pytest.raises(ConfigError, match="openssl rand -hex 32"):
        find_secret({"RETFOUND_SALT": "short"})
    assert not list(tmp_path.rglob("*"))


def test_without_one_it_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    assert find_secret(env, create=False).is_new
    assert not list(tmp_path.rglob("*"))
    first = find_secret(env)
    path = tmp_path / ".config" / "retfound" / "salt"
    assert (first.is_new, first.location) == (True, str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = find_secret(env)
    assert (again.is_new, again.key) == (False, first.key)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        find_secret(env)


def test_packs_that_begin_at_once_end_with_one_secret(tmp_path: Path) -> None:
    code = "from shards.people.secret import find_secret; print(find_secret().fingerprint)"
    env = {**os.environ, "HOME": str(tmp_path)}
    env = {name: value for name, value in env.items() if name not in ("RETFOUND_SALT", "XDG_CONFIG_HOME")}
    begun = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert len({process.communicate()[0] for process in begun}) == 1
    assert [path.name for path in (tmp_path / ".config" / "retfound").iterdir()] == ["salt"]


def test_where_it_cannot_be_kept_one_line_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot be stored .*openssl rand -hex 32.*RETFOUND_SALT"):
        find_secret({"HOME": str(tmp_path)})
