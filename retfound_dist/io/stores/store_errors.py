"""Explains errors of a store in one line that says what to do, and stops requests after their time limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_DENIED_BY_CODE = {
    "InvalidAccessKeyId": "the store does not know this access key; check the credentials "
    "(AWS_ACCESS_KEY_ID, or the profile in AWS_PROFILE), and that AWS_ENDPOINT_URL is the address of "
    "their store",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key; check the credentials "
    "(AWS_SECRET_ACCESS_KEY, or the profile in AWS_PROFILE)",
    "RequestTimeTooSkewed": "this machine's clock differs from the store's by more than 15 minutes; "
    "set the clock (timedatectl set-ntp true)",
    "ExpiredToken": "the credentials have expired; log in again, or renew AWS_SESSION_TOKEN",
    "InvalidToken": "AWS_SESSION_TOKEN is not valid for this store; renew the credentials",
}
_DENIED_OTHERWISE = "access denied; check credentials and rights"
# By the name of the class: botocore is imported only where S3 is used.
_BY_CLASS_NAME = {
    "NoCredentialsError": "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or AWS_PROFILE (`aws configure` writes a profile)",
    "PartialCredentialsError": "one of the two keys is missing; set both AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY",
}
_QUERY = re.compile(r"(https?://[^\s\"'?]*)\?[^\s\"']*")
"""The query of an address. It is long, and in a signed address it is secret."""
_PACKAGES = {"botocore", "aiobotocore", "aiohttp", "s3fs"}


def error_code(error: BaseException) -> str:
    """S3's code (`NoSuchBucket`, `403`), from an error or its causes; empty where there is none."""
    for link in _error_chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def access_denied_reason(code: str) -> str:
    """Why access was denied, by S3's code, and what to do."""
    return _DENIED_BY_CODE.get(code, _DENIED_OTHERWISE)


def missing_bucket_reason(bucket: str) -> str:
    """That a bucket does not exist, and what to do."""
    return (
        f"there is no bucket {bucket}; check the name and AWS_ENDPOINT_URL, "
        f"or create it: aws s3 mb s3://{bucket}"
    )


def other_error_reason(error: BaseException) -> str | None:
    """One line on an error other than denied access or a missing bucket; None if it is not from a store."""
    if type(error).__name__ in _BY_CLASS_NAME:
        return _BY_CLASS_NAME[type(error).__name__]
    if error_code(error) == "400":
        return "the store rejects the request as invalid (400); check the region, and renew the login"
    is_store_error = isinstance(error, OSError) or type(error).__module__.split(".")[0] in _PACKAGES
    if not is_store_error and not str(error).startswith("Invalid endpoint"):  # botocore's ValueError
        return None
    return _QUERY.sub(r"\1", " ".join(str(error).split())) or type(error).__name__


class OutOfPatienceError(OSError):
    """A request that is not repeated, because its time is over."""


def reporting_session(on_answer: Callable[[str], None], is_time_up: Callable[[], bool]) -> Any:
    """A session of aiobotocore that reports each answer, or why there is none, to `on_answer`.

    Before each request it asks `is_time_up`, because botocore limits the number of attempts, not the time.
    """
    # Imported here: a run on local disks needs no S3 client.
    from aiobotocore.session import AioSession  # type: ignore[import-untyped]

    last_failure = ""

    def received(response_dict: Any, exception: Any, **_: Any) -> None:
        nonlocal last_failure
        status = (response_dict or {}).get("status_code", 0)
        if exception is not None:
            last_failure = (
                _QUERY.sub(r"\1", " ".join(str(exception).split()))[:200] or type(exception).__name__
            )
        else:
            last_failure = f"it answers {status}" if status >= 500 or status == 429 else ""
        on_answer(last_failure)

    def before_send(**_: Any) -> None:
        if is_time_up():
            raise OutOfPatienceError(last_failure or "it does not answer")

    def send_at_once(params: Any, **_: Any) -> None:
        """aiohttp waits for `100 Continue` without a limit. A store that stalls would block a write for
        ever."""
        params["headers"].pop("Expect", None)

    session = AioSession()
    session.register("before-call.s3", send_at_once)
    session.register("response-received.s3", received)
    session.register("before-send.s3", before_send)
    return session


def _error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
