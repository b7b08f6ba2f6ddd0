"""What a peer says when it says no."""

from __future__ import annotations

import pytest

from aiaas_sdk import errors
from aiaas_sdk.wire.status import retry_after, status_error


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, errors.InvalidRequestError),
        (401, errors.AuthenticationError),
        (403, errors.PermissionDeniedError),
        (404, errors.ModelNotFoundError),
        (409, errors.InvalidRequestError),
        (413, errors.PayloadTooLargeError),
        (415, errors.InvalidRequestError),
        (422, errors.InvalidRequestError),
        (429, errors.RateLimitedError),
        (500, errors.ModelError),
        (502, errors.UnavailableError),
        (503, errors.UnavailableError),
        (504, errors.UnavailableError),
        (507, errors.ServerError),
    ],
)
def test_the_class_is_told_by_the_status_alone(status: int, cls: type) -> None:
    error = status_error(status, {}, b"<html>nginx</html>", verb=True)
    assert type(error) is cls
    assert error.status == status


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "too hot"}',
        b'{"error": {"message": "too hot", "code": 3}}',
        b'{"detail": "too hot"}',
        b'{"message": "too hot"}',
        b"too hot",
        b"<html><body><h1>too hot</h1></body></html>",
    ],
)
def test_the_peers_own_words_are_kept(body: bytes) -> None:
    assert "too hot" in str(status_error(400, {}, body, verb=True))


def test_the_words_are_one_short_line_without_controls() -> None:
    text = str(status_error(502, {}, b"\x1b[31mbad\r\nLevel=ERROR forged\xe2\x80\xae" + b"x" * 200_000, verb=True))
    assert len(text) < 1_300
    assert not {"\x1b", "\r", "\n", "\u202e"} & {*text}


@pytest.mark.parametrize(("headers", "seconds"), [({"retry-after": "3"}, 3.0), ({"retry-after": "1.5"}, 1.5)])
def test_retry_after_in_seconds(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds


def test_milliseconds_win() -> None:
    assert retry_after({"retry-after": "3", "retry-after-ms": "300"}) == pytest.approx(0.3)


@pytest.mark.parametrize("value", ["0", "-1", "", "soon", "nan", "inf", "1e999", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_says_nothing_is_as_if_absent(value: str) -> None:
    assert retry_after({"retry-after": value}) is None
