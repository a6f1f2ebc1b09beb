"""Who may speak HTTP with the daemon: its owner's processes, and no web page.

On the Unix socket the system says who is there. On TCP it does not, so there a token is asked for; and since browsers
send what any page wants to loopback, what only they send is refused.
"""

import hashlib
import hmac
import os
import re
import socket

from aiohttp import web

from daemon.unix_socket import peer_uid
from runners.errors import NotAuthenticatedError, PermissionDeniedError

_LOOPBACK = re.compile(r"(127(\.\d{1,3}){3}|\[::1\]|localhost)(:\d{1,5})?", re.ASCII | re.IGNORECASE)


class WrongTokenError(NotAuthenticatedError):
    """The token is missing or wrong: that of ours, and not a vendor's login."""


class Guard:
    """Lets a request in, or raises. `token` is what has to come with those on TCP, None where nothing listens there.

    It may be changed, and holds from the next request on.
    """

    def __init__(self, token: str | None) -> None:
        self.token = token

    def check(self, request: web.Request) -> None:
        """Raises PermissionDeniedError or NotAuthenticatedError. It takes as long for any token."""
        connected = request.transport.get_extra_info("socket") if request.transport else None
        if connected is None:
            raise PermissionDeniedError("the connection is gone")
        if connected.family == socket.AF_UNIX:
            if peer_uid(connected) != os.getuid():
                raise PermissionDeniedError("this socket is another user's")
            return
        _refuse_web_pages(request)
        # Some clients send two keys, of which one is for somebody else. Both are looked at, whatever the first was.
        right = None if self.token is None else _digest(self.token)
        is_right = [right is not None and hmac.compare_digest(_digest(token), right) for token in _tokens(request)]
        if not any(is_right):
            raise WrongTokenError(
                "the token is missing or wrong",
                hint="send `Authorization: Bearer TOKEN`; `runnerd doctor` says which file holds it",
            )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _tokens(request: web.Request) -> tuple[str, str]:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else "", request.headers.get("x-api-key", "")


def _refuse_web_pages(request: web.Request) -> None:
    if not _LOOPBACK.fullmatch(request.headers.get("host", "")):
        # A name of the page's own that was made to mean this machine.
        raise PermissionDeniedError("the Host is not this machine: use 127.0.0.1, [::1] or localhost")
    if "origin" in request.headers or request.headers.get("sec-fetch-site", "none") != "none":
        raise PermissionDeniedError("web pages may not use this: a browser has sent it for one")
