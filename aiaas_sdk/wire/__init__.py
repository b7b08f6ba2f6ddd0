"""Codecs: from records to (headers, bytes) and back. Pure, and shared by client and server."""
