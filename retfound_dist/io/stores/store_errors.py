"""Explains errors of a store in one line that says what to do, and decides when a request is not sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_REFUSED = {
    "InvalidAccessKeyId": "the store does not know this access key; check the credentials "
    "(AWS_ACCESS_KEY_ID, or the profile in AWS_PROFILE), and that AWS_ENDPOINT_URL names their store",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check the credentials "
    "(AWS_SECRET_ACCESS_KEY, or the profile in AWS_PROFILE)",
    "RequestTimeTooSkewed": "this machine's clock differs from the store's by more than 15 minutes; "
    "set the clock (timedatectl set-ntp true)",
    "ExpiredToken": "the credentials have expired; log in again, or renew AWS_SESSION_TOKEN",
    "InvalidToken": "AWS_SESSION_TOKEN is not one of this store; renew the credentials",
}
_DENIED = "access denied; check credentials and rights"
# By the name of the class: botocore is imported only where S3 is used.
_BY_NAME = {
    "NoCredentialsError": "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or AWS_PROFILE (`aws configure` writes a profile)",
    "PartialCredentialsError": "half of the credentials is missing; set both AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY",
}
_QUERY = re.compile(r"(https?://[^\s\"'?]*)\?[^\s\"']*")
"""The query of an address. It is long, and in a signed address it is a secret."""
_PACKAGES = {"botocore", "aiobotocore", "aiohttp", "s3fs"}


def code_of(error: BaseException) -> str:
    """S3's code (`NoSuchBucket`, `403`), from an error or its causes; empty where there is none."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def refused(code: str) -> str:
    """Why access was denied, by S3's code, and what to do."""
    return _REFUSED.get(code, _DENIED)


def no_bucket(bucket: str) -> str:
    """What to do about a bucket that is not there."""
    return (
        f"there is no bucket {bucket}; check the name and AWS_ENDPOINT_URL, "
        f"or create it: aws s3 mb s3://{bucket}"
    )


def reason(error: BaseException) -> str | None:
    """One line for any other error of a store; None where the error is not a store's."""
    if type(error).__name__ in _BY_NAME:
        return _BY_NAME[type(error).__name__]
    if code_of(error) == "400":
        return "the store calls the request bad (400); check the region, and renew the login"
    ours = isinstance(error, OSError) or type(error).__module__.split(".")[0] in _PACKAGES
    if not ours and not str(error).startswith("Invalid endpoint"):  # botocore's ValueError
        return None
    return _QUERY.sub(r"\1", " ".join(str(error).split())) or type(error).__name__


class OutOfPatienceError(OSError):
    """A request that is not sent again, because its time is over."""


def listening_session(answered: Callable[[str], None], over: Callable[[], bool]) -> Any:
    """A session of aiobotocore that reports each answer, or why there is none, to `answered`.

    Before each request it asks `over` whether the time has run out: botocore counts tries, not seconds.
    """
    # Imported here: a run on local disks needs no S3 client.
    from aiobotocore.session import AioSession  # type: ignore[import-untyped]

    last = ""

    def received(response_dict: Any, exception: Any, **_: Any) -> None:
        nonlocal last
        status = (response_dict or {}).get("status_code", 0)
        if exception is not None:
            last = _QUERY.sub(r"\1", " ".join(str(exception).split()))[:200] or type(exception).__name__
        else:
            last = f"it answers {status}" if status >= 500 or status == 429 else ""
        answered(last)

    def before_send(**_: Any) -> None:
        if over():
            raise OutOfPatienceError(last or "it does not answer")

    def send_at_once(params: Any, **_: Any) -> None:
        """aiohttp waits for `100 Continue` without end: a store that stalls would hold a write for ever."""
        params["headers"].pop("Expect", None)

    session = AioSession()
    session.register("before-call.s3", send_at_once)
    session.register("response-received.s3", received)
    session.register("before-send.s3", before_send)
    return session


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
