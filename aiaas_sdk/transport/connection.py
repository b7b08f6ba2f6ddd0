"""One HTTP/1.1 connection on a socket that never blocks."""

from __future__ import annotations

import select
import socket
import ssl
import sys
from collections.abc import Callable

from aiaas_sdk.transport.answer import Answer
from aiaas_sdk.transport.message import Message, Outgoing
from aiaas_sdk.transport.origin import Origin
from aiaas_sdk.transport.parsers import Parser, make_parser
from aiaas_sdk.transport.steps import READ, WRITE, Ready, Steps, left, ready
from aiaas_sdk.transport.watching import Watch

__all__ = ["Connection", "readable"]

PIECE = 1 << 16
"""Bytes asked for where a parser has to see them."""
MARK = 1 << 18
"""Bytes to wait for while more than that is still to come."""
TLS_PIECE = 1 << 18
"""Bytes handed to TLS at once; it cuts them into records of 16 KiB."""
HAS_POLL = hasattr(select, "poll")  # Windows has only select


class Connection:
    """Carries one request after another.

    `sent`: bytes of the present request that went out. `first`: what has to be waited for before the first attempt to
    receive (READ, or 0). `watch`: what an event loop has on the socket between two reads of an opened reply; it ends
    with the answer.
    """

    def __init__(self, sock: socket.socket, origin: Origin) -> None:
        self._sock, self._fd, self.origin = sock, sock.fileno(), origin
        self._secure = isinstance(sock, ssl.SSLSocket)
        # what TLS has decrypted already doesn't show on the socket, so waiting comes second there
        self.first = 0 if self._secure else READ
        self._vectored = not self._secure and hasattr(sock, "sendmsg")  # Windows has none
        # elsewhere a mark that the receive buffer can't hold would never be reached; Linux lowers it
        tcp = sock.family != getattr(socket, "AF_UNIX", None)
        self._paced, self._mark = sys.platform == "linux" and tcp and not self._secure, 1
        self._parser: Parser | None = None
        self.watch: Watch | None = None
        self.sent = 0

    def fileno(self) -> int:
        return self._fd

    # ------------------------------------------------------------ a request
    def start(self, message: Message, answer: Answer, until: float | None) -> Steps[None]:
        """Send all of it, and receive until the answer's head is there."""
        self.sent = 0
        if self._parser is None:
            self._parser = make_parser()
        self._parser.begin(answer, message.request.method)
        yield from self._send(message.outgoing(), answer, until)
        while not answer.headed:
            yield from self._receive(answer, until)

    def finish(self, answer: Answer, until: float | None) -> Steps[None]:
        """Receive until the answer is done."""
        while not answer.done:
            yield from self._receive(answer, until)

    def more(self, answer: Answer, until: float | None) -> Steps[None]:
        """Receive until there is another piece, or the answer is done."""
        while not (answer.done or answer.pieces):
            yield from self._receive(answer, until)

    def receive(self, answer: Answer, until: float | None, wait: Callable[[Ready], int]) -> None:
        """As `more`, for who can wait at once: for each piece of a stream steps cost as much as all the rest."""
        want = self.first
        while not (answer.done or answer.pieces):
            if want:
                wait(Ready(self._fd, want, until))
            else:
                left(until)
            want = self.attempt(answer) or self.first

    # ------------------------------------------------------------ out
    def _send(self, outgoing: Outgoing, answer: Answer, until: float | None) -> Steps[None]:
        """Send while listening: a peer may refuse the request before it has seen all of it."""
        while outgoing:
            try:
                count = self._push(outgoing)
            except (BlockingIOError, ssl.SSLWantWriteError):
                got = yield from ready(self._fd, READ | WRITE, until)
                if got & READ and self._refused(answer):
                    return
            except ssl.SSLWantReadError:
                yield from ready(self._fd, READ, until)
            except OSError as error:
                if not self.sent:
                    raise self._verdict(error) from None
                answer.reusable = False  # the peer hung up; what it said before is still to be read
                return
            else:
                outgoing.advance(count)
                self.sent += count
                if outgoing:
                    left(until)

    def _verdict(self, error: OSError) -> OSError:
        """Why the peer hung up before anything was sent: TLS may have its alert already."""
        try:
            if self._secure:
                self._sock.recv(1)
        except OSError as verdict:
            return verdict if "ALERT" in (getattr(verdict, "reason", None) or "") else error
        return error

    def _push(self, outgoing: Outgoing) -> int:
        if self._vectored and outgoing.many:
            return self._sock.sendmsg(outgoing.several())
        return self._sock.send(outgoing.single(TLS_PIECE if self._secure else None))

    def _refused(self, answer: Answer) -> bool:
        """Whether an answer that came already makes the rest of the request useless."""
        try:
            self._pull(answer)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        if not answer.headed or (answer.status < 300 and not answer.done):
            return False
        answer.reusable = False
        return True

    # ------------------------------------------------------------ in
    def _receive(self, answer: Answer, until: float | None) -> Steps[None]:
        if self.first:
            yield from ready(self._fd, self.first, until)
        else:
            left(until)
        want = self.attempt(answer)
        if want:
            yield from ready(self._fd, want, until)

    def attempt(self, answer: Answer) -> int:
        """Take what has come; gives what has to be waited for before the next attempt (READ, WRITE or 0)."""
        try:
            self._pull(answer)
        except ssl.SSLWantWriteError:
            return WRITE
        except (BlockingIOError, ssl.SSLWantReadError):
            return READ
        return 0

    def _pull(self, answer: Answer) -> None:
        """Take what has come; straight into its place where the length is known."""
        room = answer.room
        if room is not None:
            self._drop_parser()  # it won't see the end of this body
            count = self._sock.recv_into(room)
            answer.filled(count) if count else answer.eof()
            self._pace(answer)
            return
        data = self._sock.recv(PIECE)
        if not data:
            answer.eof()
            return
        answer.arrived(len(data))
        assert self._parser is not None
        self._parser.feed(data)
        answer.check()
        if answer.done:
            self._parser.forget()
            if self.watch is not None and not self.watch.end():
                answer.reusable = False
        elif answer.room is not None:
            self._pace(answer)

    def _drop_parser(self) -> None:
        if self._parser is not None:
            self._parser.forget()
            self._parser = None

    def _pace(self, answer: Answer) -> None:
        """Of a large body, wait for much at once: waking for each packet costs more than copying it."""
        mark = MARK if answer.room is not None and len(answer.room) > MARK else 1
        if mark != self._mark and self._paced:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
            self._mark = mark

    # ------------------------------------------------------------ between requests
    def usable(self) -> bool:
        """A kept connection on which something came is one that the peer has closed, or that is out of step."""
        return not readable(self._sock)

    def leave(self) -> Steps[None]:
        """Close it, whose answer hasn't come to its end."""
        yield from ()
        self.close()

    def close(self) -> None:
        self._drop_parser()
        if self.watch is None:
            self._sock.close()
        else:
            self.watch.close(self._sock)


def readable(sock: socket.socket) -> bool:
    """Whether something has come, or the peer has hung up."""
    if HAS_POLL:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])
