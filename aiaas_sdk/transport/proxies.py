"""Which proxy leads to an origin: the one that `Network.proxy` names, else that of the environment.

`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, each also in lower case, which wins, as in curl and
urllib. On Windows and macOS the system's settings count where no variable does.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.records.network import Network
from aiaas_sdk.transport.origin import Origin

__all__ = ["Proxy", "bypassed", "named", "proxy_for"]

SCHEMES = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the setting that names it. Its address may hold a password, so nothing shows it."""

    where: str
    variable: str
    url: str = field(repr=False)


def proxy_for(origin: Origin, network: Network) -> Proxy | None:
    """The proxy for requests to an origin; None where they go straight there.

    Raises:
        ConfigError: the variable, or the network, holds no address of a proxy. The address isn't repeated.
    """
    if network.proxy == "none" or network.unix_socket is not None:
        return None
    return _by_environment(origin) if network.proxy is None else named(network.proxy)


def named(text: str) -> Proxy:
    """The proxy of `Network.proxy`; NO_PROXY doesn't concern it."""
    return _parsed("network.proxy", text.strip())


def _by_environment(origin: Origin) -> Proxy | None:
    found = _chosen(origin.scheme)
    if found is None:
        return _system(origin)
    variable, text = found
    if not text or bypassed(origin, _environment("no_proxy")[1]):
        return None
    return _parsed(variable, text)


def _chosen(scheme: str) -> tuple[str, str] | None:
    for name in (f"{scheme}_proxy", "all_proxy"):
        variable, text = _environment(name)
        if variable:
            return variable, text
    return None


def _environment(name: str) -> tuple[str, str]:
    """A variable's name and value. An empty one in lower case turns the other off; in upper case it's unset."""
    if name in os.environ:
        return name, os.environ[name].strip()
    upper = name.upper()
    # a CGI script's HTTP_PROXY is a header of whoever called it (CVE-2016-5385)
    text = "" if upper == "HTTP_PROXY" and "REQUEST_METHOD" in os.environ else os.environ.get(upper, "").strip()
    return (upper, text) if text else ("", "")


def _system(origin: Origin) -> Proxy | None:
    """What the system's own settings say; only these two systems have any."""
    if sys.platform not in ("win32", "darwin"):
        return None
    from urllib.request import getproxies, proxy_bypass

    text = getproxies().get(origin.scheme)
    return _parsed("the system's proxy settings", text) if text and not proxy_bypass(origin.host) else None


def _parsed(variable: str, text: str) -> Proxy:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in SCHEMES or not re.fullmatch(r"[!-~]+", url):
        raise ConfigError(f"{variable} holds no address of a proxy", hint="Write http://HOST:PORT, or unset it")
    return Proxy(Origin(parts.scheme, host, port or SCHEMES[parts.scheme]).where, variable, url)


# ---------------------------------------------------------------- NO_PROXY
def bypassed(origin: Origin, exceptions: str) -> bool:
    """Whether NO_PROXY names the origin.

    Its entries stand between commas or blanks: `*`; a domain, which means its subdomains too, with or without a
    leading dot or `*.`; an IP address or a network (`10.0.0.0/8`); each with `:PORT` for that port only.
    """
    return any(_named(origin, entry) for entry in re.split(r"[,\s]+", exceptions.lower()) if entry)


def _named(origin: Origin, entry: str) -> bool:
    if entry == "*":
        return True
    scheme, mark, rest = entry.partition("://")
    if mark and scheme not in (origin.scheme, "all"):
        return False
    host, port = _split(rest if mark else entry)
    if port and port != str(origin.port):
        return False
    own = origin.host.lower().rstrip(".")
    return _same_address(own, host) or _same_domain(own, host)


def _split(entry: str) -> tuple[str, str]:
    """Host and port; an IPv6 address without brackets has no port."""
    bracketed = re.fullmatch(r"\[(.*)\](?::(\d*))?", entry)
    if bracketed:
        return bracketed[1], bracketed[2] or ""
    return (entry, "") if entry.count(":") != 1 else tuple(entry.split(":"))  # type: ignore[return-value]  # two


def _same_address(own: str, entry: str) -> bool:
    try:
        return ip_address(own) in ip_network(entry, strict=False)
    except ValueError:  # one of them is a name
        return False


def _same_domain(own: str, entry: str) -> bool:
    domain = entry.removeprefix("*").strip(".")
    return bool(domain) and (own == domain or own.endswith(f".{domain}"))
