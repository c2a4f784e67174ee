import asyncio
import sys

import pytest

from halve.errors import EnvironmentFailedError, InvalidParameterError, MissingExtraError
from halve.serving.chat import Upstream
from halve.testing.chat import completion


def asked(upstream, path="/x", headers=(), **options):
    async def main():
        try:
            async with upstream.asked("POST", path, query="", headers=headers, body=b"{}", **options) as reply:
                return reply.status, dict(reply.headers), await reply.body()
        finally:
            await upstream.close()

    return asyncio.run(main())


@pytest.mark.parametrize("url", ["ftp://host", "host:80", "http://", "http://host/v1?key=s3", "http://me:s3@host"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InvalidParameterError, match="upstream must be an http or https URL") as caught:
        Upstream(url)
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schl\u00fcssel"])
def test_a_malformed_key_is_refused_and_not_repeated(key):
    with pytest.raises(InvalidParameterError, match="upstream_key must be printable ASCII without blanks") as caught:
        Upstream("http://localhost/v1", key=key)
    assert not key or key not in str(caught.value)


def test_a_forbidden_header_is_not_repeated(behind):
    with pytest.raises(EnvironmentFailedError, match="a header that HTTP forbids") as caught:
        asked(Upstream(behind.url), headers=[(b"authorization", b"secret ")])
    assert "secret" not in str(caught.value)


def test_a_missing_library_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'halve\[serve\]'"):
        Upstream("http://localhost/v1")


def test_headers_of_one_connection_stay_behind(behind):
    sent = [
        (b"Connection", b"close, X-Mine"),
        (b"X-Mine", b"1"),
        (b"Upgrade", b"h2c"),
        (b"Host", b"elsewhere"),
        (b"x-kept", b"yes"),
    ]
    status, headers, _ = asked(Upstream(behind.url), headers=sent)
    assert (status, headers[b"x-request-id"]) == (200, b"7")
    assert b"content-length" not in headers
    got = {name.lower(): value for name, value in behind.asked[0][2].items()}
    assert got["x-kept"] == "yes"
    assert not {"upgrade", "x-mine"} & set(got)
    assert got["host"] != "elsewhere"


def test_no_proxy_is_asked(behind, monkeypatch):
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert asked(Upstream(behind.url))[0] == 200


def test_a_redirect_is_passed_on_and_not_followed(behind):
    behind.script = lambda body: (307, completion("elsewhere"))
    assert asked(Upstream(behind.url))[0] == 307
    assert len(behind.asked) == 1


def test_no_reply_and_half_a_reply_are_said(behind):
    with pytest.raises(EnvironmentFailedError, match="the server behind the cache gave no whole reply"):
        asked(Upstream("http://127.0.0.1:9/v1"))
    behind.script = lambda body: [b"data: 1\n\n", ValueError()]
    with pytest.raises(EnvironmentFailedError, match="the server behind the cache gave no whole reply"):
        asked(Upstream(behind.url))
