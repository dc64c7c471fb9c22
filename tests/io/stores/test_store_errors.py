"""What a store's errors mean, and when a request is no longer sent. (Real refusals: tests/cluster.)"""

from __future__ import annotations

import errno

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

from retfound_dist.errors import StorageError
from retfound_dist.io import slow_store, storage
from retfound_dist.io.stores import store_errors


def client_error(code: str) -> ClientError:
    """What botocore raises where S3 answers with this code."""
    return ClientError({"Error": {"Code": code, "Message": "said by the store"}}, "GetObject")


def test_the_stores_code_is_found_behind_the_error_that_s3fs_makes_of_it() -> None:
    outer = PermissionError("denied")
    outer.__cause__ = client_error("ExpiredToken")
    assert store_errors.error_code(outer) == "ExpiredToken"
    assert store_errors.error_code(ValueError("no answer of a store")) == ""


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("RequestTimeTooSkewed", "set the clock"),
        ("ExpiredToken", "log in again"),
        ("AnythingElse", "access denied"),
    ],
)
def test_a_refusal_says_what_to_do(code: str, advice: str) -> None:
    assert advice in store_errors.access_denied_reason(code)


def test_missing_credentials_name_the_variables_to_set() -> None:
    assert "AWS_ACCESS_KEY_ID" in str(store_errors.other_error_reason(NoCredentialsError()))
    half = PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY")
    assert "set both" in str(store_errors.other_error_reason(half))


def test_a_signed_address_in_an_error_loses_its_query() -> None:
    error = OSError(errno.EIO, "no answer from https://store/b/k?X-Amz-Signature=0123abc in time")
    assert store_errors.other_error_reason(error) == "[Errno 5] no answer from https://store/b/k in time"


def test_an_error_that_is_no_stores_has_no_reason() -> None:
    assert store_errors.other_error_reason(KeyError("x")) is None
    assert "Invalid endpoint" in str(store_errors.other_error_reason(ValueError("Invalid endpoint: htp://x")))


def test_each_answer_is_told_and_no_request_is_sent_when_its_time_is_over(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[str] = []
    monkeypatch.setattr(slow_store, "record_answer", answers.append)
    storage._filesystem.cache_clear()
    storage.write_bytes(f"s3://{bucket}/a", b"x")
    assert set(answers) == {""}
    monkeypatch.setattr(slow_store, "is_time_up", lambda: True)
    storage._filesystem.cache_clear()
    count = len(answers)
    with pytest.raises(StorageError, match=r"cannot read .*/a: it does not answer"):
        storage.read_bytes(f"s3://{bucket}/a")
    assert answers[count:] == ["it does not answer"]
