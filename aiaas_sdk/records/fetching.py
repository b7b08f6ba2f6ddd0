"""What may be fetched, and from where: the rules of `aiaas.fetch`."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal
from urllib.parse import urlsplit

from aiaas_sdk.articles import kind_of
from aiaas_sdk.errors import ConfigError, InputError
from aiaas_sdk.records.network import Network

__all__ = ["Fetching", "Guarded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """The bounds of a fetch. A URL may come from anybody: as it stands, these lead him nowhere but to public hosts.

    Attributes:
        schemes: "https", and "http" where it is named.
        hosts: the only hosts that may be asked, by their names; None for any.
        networks: addresses that may be asked although they aren't public, as "10.1.0.0/16" or "127.0.0.1". Loopback,
            private, link-local and all others that the internet doesn't route are refused else, whatever name they
            have; looked at is the address that is connected to.
        media_types: what may come, "*" for any part of it.
        size: bytes at most.
        timeout: seconds for the whole, redirects included.
        redirects: how many are followed; each is held to these rules.
    """

    schemes: tuple[Literal["http", "https"], ...] = ("https",)
    hosts: tuple[str, ...] | None = None
    networks: tuple[str, ...] = ()
    media_types: tuple[str, ...] = ("image/*", "audio/*", "application/pdf")
    size: int = 20 * 1024 * 1024
    timeout: float = 20.0
    redirects: int = 3

    def __post_init__(self) -> None:
        for name in ("schemes", "hosts", "networks", "media_types"):
            value = getattr(self, name)
            if not (isinstance(value, tuple) and all(isinstance(one, str) for one in value)) and value is not None:
                raise ConfigError(f"{name} of Fetching is {kind_of(value)}", hint="Give a tuple of texts")
        if not self.schemes or {*self.schemes} - {"http", "https"}:
            raise ConfigError(f"schemes is {self.schemes!r}", hint='Only "https" and "http" can be fetched')
        if type(self.size) is not int or self.size < 1 or type(self.redirects) is not int or self.redirects < 0:
            raise ConfigError(
                "size and redirects of Fetching are whole numbers", hint="size from 1 on, redirects from 0"
            )
        if not isinstance(self.timeout, int | float) or not self.timeout > 0:
            raise ConfigError(f"timeout is {self.timeout!r} s", hint="Give seconds above 0")
        for network in self.networks:
            _parsed(network)

    def check(self, url: str) -> None:
        """InputError unless it may be asked for; where its host is isn't known yet."""
        try:
            parts = urlsplit(url)
            host, _ = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            raise InputError("that URL can't be read", hint="Write https://HOST/PATH") from None
        if parts.scheme not in self.schemes:
            raise InputError(
                f"a URL of the scheme {parts.scheme[:20]!r} isn't fetched", hint=f"Only {', '.join(self.schemes)} is"
            )
        if not host or parts.username is not None or parts.password is not None:
            raise InputError("a URL to fetch has a host, and no user name or password", hint="Write https://HOST/PATH")
        if self.hosts is not None and host not in {name.lower().rstrip(".") for name in self.hosts}:
            raise InputError(f"{host[:100]} isn't one of the hosts that may be asked", hint="Fetching(hosts=...)")

    def takes(self, media_type: str) -> bool:
        return any(fnmatchcase(media_type, pattern.lower()) for pattern in self.media_types)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded(Network):
    """Connections to public addresses, and to those of `networks`; never through a proxy, which would look up the
    name again."""

    proxy: Literal["none"] | str | None = "none"
    networks: tuple[str, ...] = ()

    def admits(self, address: str) -> bool:
        from ipaddress import ip_address

        found = ip_address(address.partition("%")[0])
        if any(found in _parsed(network) for network in self.networks):
            return True
        return _public(found)


def _parsed(network: str) -> Any:
    from ipaddress import ip_network

    try:
        return ip_network(network)
    except ValueError:
        raise ConfigError(f"{network[:60]!r} is no network", hint='Write "10.1.0.0/16" or "127.0.0.1"') from None


def _public(address: Any) -> bool:
    """Whether the internet routes it; of an IPv6 address that stands for one of IPv4, whether it routes that one."""
    if address.version == 6:
        inside = address.ipv4_mapped or address.sixtofour or _translated(address)
        if inside is not None:
            return _public(inside)
        if address.teredo is not None:
            return False
    return bool(address.is_global and not address.is_multicast)


def _translated(address: Any) -> Any:
    """The IPv4 address behind NAT64's own prefix (RFC 6052, 64:ff9b::/96)."""
    from ipaddress import IPv4Address

    return IPv4Address(int(address) & 0xFFFFFFFF) if int(address) >> 32 == 0x0064FF9B << 64 else None
