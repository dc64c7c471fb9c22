"""Secrets of URLs and of the environment: in no error, listing, log, page or file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.errors import StorageError
from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.io import storage
from retfound_dist.io.urls import MIN_SECRET_LENGTH_IN_FILES, check_spelling, mask
from retfound_dist.runtime.unexpected_error import report_unexpected
from tests import ROOT

KEY, SECRET, TOKEN = (
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "FwoGZXIvYXdzEXAMPLETOKEN",
)
HUB = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"
SECRETS = (KEY, SECRET, TOKEN, HUB, "fe5f80f77d5fa3beca038a248ff027d0", "pa55word")
SIGNED = (
    f"https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY}%2F20261129%2Fs3"
    f"&X-Amz-Date=20261129T000000Z&X-Amz-Security-Token={TOKEN}&X-Amz-Signature=fe5f80f77d5fa3beca038a248ff027d0"
)
HOSTILE = (
    f"s3://{KEY}:{SECRET}@bucket/run",
    f"cannot read 's3://{KEY}:{SECRET}@bucket/run': denied",
    SIGNED,
    "https://user:pa55word@host:8443/x",
    f"https://{TOKEN}@github.com/a/b",
    f"AWS_SECRET_ACCESS_KEY={SECRET}",
    f"{{'AccessKeyId': '{KEY}', 'SecretAccessKey': '{SECRET}', 'SessionToken': '{TOKEN}'}}",
    json.dumps({"aws_secret_access_key": SECRET, "aws_session_token": TOKEN, "password": "pa55word"}),
    f"Authorization: AWS4-HMAC-SHA256 Credential={KEY}/20261129, Signature=fe5f80f77d5fa3beca038a248ff027d0",
    f"Authorization: Bearer {HUB}",
    f"token {HUB} is not valid",
)
HARMLESS = (
    "s3://bucket/a@b/c:d.tar", "http://127.0.0.1:9000/a@b", "s3://bucket/run at step 10: loss=0.5",
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE", "data.shards=s3://bucket/oct key=value",
    '{"password": null, "session_token": {"a": 1}}', "set RETFOUND_SALT to the one of that set",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_secrets_are_masked_wherever_they_stand(text: str) -> None:
    masked = mask(text, {})
    assert not [secret for secret in SECRETS if secret in masked]
    assert "***" in masked
    assert mask(masked, {}) == masked
    if text.startswith("{") and '"' in text:
        assert json.loads(masked).keys() == json.loads(text).keys()


@pytest.mark.parametrize("text", HARMLESS)
def test_texts_without_secrets_stay_as_they_are(text: str) -> None:
    assert mask(text, {}) == text


def test_pictures_in_pages_stay_whole_and_what_stands_beside_them_is_masked() -> None:
    picture = "data:image/png;base64," + "akiaAKIAtoken=abcSalthf+/" * 40_000 + "=="
    page = f"<img src='{picture}'><p>{HOSTILE[0]}</p><img src='{picture}'>"
    masked = mask(page, {})
    assert masked.count(picture) == 2
    assert SECRET not in masked


def test_what_the_environment_holds_is_masked_whoever_says_it() -> None:
    env = {
        "AWS_SECRET_ACCESS_KEY": "minio-own-secret",
        "AWS_SESSION_TOKEN": "short",
        "AWS_PROFILE": "clinic-profile",
    }
    assert (
        mask("client(minio-own-secret, clinic-profile, short)", env) == "client(***, clinic-profile, short)"
    )
    assert mask("minio-own-secret", env, MIN_SECRET_LENGTH_IN_FILES) == "***"


@pytest.mark.parametrize(
    "url", [f"s3://{KEY}:{SECRET}@bucket/x", f"s3://{TOKEN}@bucket/x", "s3://user:pa55word@b"]
)
def test_a_url_with_credentials_is_refused_in_a_line_without_them(url: str) -> None:
    with pytest.raises(StorageError, match="contains credentials: remove them from the URL") as caught:
        check_spelling(url)
    assert not [secret for secret in SECRETS if secret in str(caught.value)]


@pytest.mark.parametrize(
    "command",
    [
        ["runs", "URL"], ["runs", "URL", "--debug"], ["verify", "URL"], ["report", "URL"], ["dashboard", "URL"],
        ["show", "configs/pack_folder.toml", "out.url=URL"], ["show", "configs/pack_folder.toml", "out.url=URL", "--json"],
        ["show", "configs/pretrain_vitl_oct.toml", "model.init=URL"], ["embed", "URL", "images", "--out", "f.npz"],
        ["plan", "configs/pretrain_vitl_oct.toml", "data.shards=URL"], ["runs", "x", "--strange=URL"],
        ["pack", "configs/demo/pack.toml", "out.url=URL"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("url", [f"s3://{KEY}:{SECRET}@bucket/x", SIGNED])
def test_no_command_prints_a_secret(command: list[str], url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):  # argparse
        main([word.replace("URL", url) for word in command])
    output = capfd.readouterr()
    assert "***" in output.out + output.err
    assert not [secret for secret in SECRETS if secret in output.out + output.err]


def test_a_rank_that_cannot_begin_prints_no_secret() -> None:
    """In a process of its own, for a rank takes the signals of its process over."""
    command = [
        sys.executable,
        "-m",
        "retfound_dist",
        "pretrain",
        "configs/pretrain_vitl_oct.toml",
        f"data.shards={SIGNED}",
    ]
    done = subprocess.run([*command, "--debug"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "***" in done.stderr
    assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]


def test_files_of_a_run_and_pages_hold_no_secret(tmp_path: Path) -> None:
    url = f"s3://{KEY}:{SECRET}@bucket/oct"
    run_folder.write_config(str(tmp_path), {"data": {"shards": url}, "n": 1})
    run_folder.append_rows(
        str(tmp_path), run_folder.EVENTS, [{"event": "end", "why": f"cannot read {SIGNED}"}]
    )
    storage.write_text(f"{tmp_path}/page.html", f"<p>{url}</p>")
    assert storage.read_json(f"{tmp_path}/{run_folder.CONFIG}")["n"] == 1
    assert run_folder.read_rows(str(tmp_path), run_folder.EVENTS)[0]["event"] == "end"
    commit = checkpoint_folder.Commit(
        url=str(tmp_path), step=1, samples=1, world_size=1, zero_stage=1, precision="fp32", batch_digest="0",
        time="", config={"data": {"shards": url}}, files={},
    )  # fmt: skip
    checkpoint_folder.write_commit(commit)
    whole = b"".join(path.read_bytes() for path in tmp_path.iterdir()).decode()
    assert whole.count("***") >= 4
    assert not [secret for secret in SECRETS if secret in whole]


def test_an_error_that_nobody_catches_and_one_of_a_worker_are_masked_too() -> None:
    """Real processes: the traceback of the interpreter itself, and that of a process of `multiprocessing`."""
    code = (
        "import sys\nfrom retfound_dist.runtime import terminal\n"
        "with terminal.filtered_output():\n    raise ValueError(sys.argv[1])\n"
    )
    worker = (
        "import multiprocessing, sys\nfrom retfound_dist.runtime.terminal import filter_output\n"
        "def work(text):\n    filter_output()\n    raise ValueError(text)\n"
        "process = multiprocessing.get_context('fork').Process(target=work, args=(sys.argv[1],))\n"
        "process.start()\nprocess.join()\n"
    )
    for program in (code, worker):
        done = subprocess.run(
            [sys.executable, "-c", program, SIGNED], capture_output=True, text=True, env=dict(os.environ)
        )
        assert "ValueError" in done.stderr
        assert not [secret for secret in SECRETS if secret in done.stderr]


def test_the_traceback_that_is_kept_for_a_report_holds_no_secret(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["retfound", "runs", SIGNED])
    assert report_unexpected(ValueError(f"strange answer of s3://{KEY}:{SECRET}@bucket"), debug=False) == 70
    traceback_path = re.search(r"traceback is in (\S+?)[,:]", capfd.readouterr().err)
    assert traceback_path is not None
    text = Path(traceback_path[1]).read_text()
    Path(traceback_path[1]).unlink()
    assert text.count("***") >= 2
    assert not [secret for secret in SECRETS if secret in text]
