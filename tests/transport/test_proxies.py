"""Which proxy the environment names, and for whom it names none."""

from __future__ import annotations

from typing import Any

import pytest

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport.origin import origin_of
from aiaas_sdk.transport.proxies import bypassed, proxy_for


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "http://a/", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://a/", ("p:1", "HTTP_PROXY")),
        ({"HTTP_PROXY": "http://p:1"}, "https://a/", None),
        ({"HTTPS_PROXY": "p:2"}, "https://a/", ("p:2", "HTTPS_PROXY")),
        ({"https_proxy": "http://p"}, "https://a/", ("p:80", "https_proxy")),
        ({"ALL_PROXY": "socks5://p"}, "https://a/", ("p:1080", "ALL_PROXY")),
        ({"all_proxy": "http://[::1]:3"}, "http://a/", ("[::1]:3", "all_proxy")),
        ({"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://q:1"}, "http://a/", ("p:1", "HTTP_PROXY")),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": "http://q:2"}, "http://a/", ("q:2", "http_proxy")),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": ""}, "http://a/", None),
        ({"HTTP_PROXY": " ", "ALL_PROXY": "http://q:1"}, "http://a/", ("q:1", "ALL_PROXY")),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http://a/", None),
        ({"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, "http://a/", ("p:1", "http_proxy")),
        ({"HTTP_PROXY": "http://user:secret@p:1"}, "http://a/", ("p:1", "HTTP_PROXY")),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "b, a"}, "http://a/", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "a", "no_proxy": ""}, "http://a/", ("p:1", "HTTP_PROXY")),
    ],
)
def test_the_environment_names_the_proxy(
    monkeypatch: Any, variables: dict[str, str], url: str, expected: tuple[str, str] | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_for(origin_of(url), Network())
    assert (None if proxy is None else (proxy.where, proxy.variable)) == expected
    assert "secret" not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://secret:p",
        "http://",
        "http://secret@",
        "http://secret:x@p:port",
        "http://p:99999",
        "http://se cret@p:1",
        "://p",
    ],
)
def test_an_address_that_is_none_is_refused_by_the_variables_name_only(monkeypatch: Any, text: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", text)
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        proxy_for(origin_of("https://a/"), Network())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "url", "expected"),
    [
        ("", "http://a/", False),
        ("*", "http://a/", True),
        ("b,*", "http://a/", True),
        ("example.com", "http://example.com/", True),
        ("example.com", "http://www.example.com/", True),
        ("example.com", "http://notexample.com/", False),
        ("example.com", "http://example.com.evil.test/", False),
        (".example.com", "http://www.example.com/", True),
        (".example.com", "http://example.com/", True),
        ("*.example.com", "http://www.example.com/", True),
        ("EXAMPLE.com", "http://Example.COM/", True),
        ("example.com.", "http://example.com/", True),
        ("example.com", "http://example.com./", True),
        (" a ,  b  c", "http://c/", True),
        (",,.", "http://a/", False),
        ("a:80", "http://a/", True),
        ("a:8080", "http://a/", False),
        ("a:8080", "http://a:8080/", True),
        ("a:", "http://a:8080/", True),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.0.0.5/8", "http://10.1.2.3/", True),
        ("10.1.2.3", "http://10.1.2.3/", True),
        ("10.1.2.3:99", "http://10.1.2.3/", False),
        ("10.0.0.0/8", "http://ten.test/", False),
        ("::1", "http://[::1]:80/", True),
        ("[::1]", "http://[::1]/", True),
        ("[::1]:81", "http://[::1]/", False),
        ("0:0:0:0:0:0:0:1", "http://[::1]/", True),
        ("fd00::/8", "http://[fd12::1]/", True),
        ("https://a", "http://a/", False),
        ("http://a", "http://a/", True),
    ],
)
def test_no_proxy_names_hosts_domains_networks_and_ports(entries: str, url: str, expected: bool) -> None:
    assert bypassed(origin_of(url), entries) is expected
