"""Connections: what performs the requests of flows."""

from aiaas_sdk.transport.awaited import AsyncHttpSender
from aiaas_sdk.transport.checking import check
from aiaas_sdk.transport.plain import HttpSender

__all__ = ["AsyncHttpSender", "HttpSender", "check"]
