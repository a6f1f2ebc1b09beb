"""Who may speak HTTP with the daemon: its owner's processes, and no web page.

On the Unix socket the system says who is there. On TCP it does not, so there a token is asked for; and since browsers
send what any page wants to loopback, what only they send is refused.
"""

import hashlib
import hmac
import ipaddress
import os
import socket

from aiohttp import web
from yarl import URL

from daemon.unix_socket import peer_uid
from runners.errors import NotAuthenticatedError, PermissionDeniedError


class Guard:
    """Lets a request in, or raises. `token` is what has to come with those on TCP, None where nothing listens there."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else _digest(token)

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
        given = _digest(_token_of(request))
        if self._token is None or not hmac.compare_digest(given, self._token):
            raise NotAuthenticatedError(
                "the token is missing or wrong",
                hint="send `Authorization: Bearer TOKEN`; `runnerd doctor` says which file holds it",
            )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _token_of(request: web.Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def _refuse_web_pages(request: web.Request) -> None:
    if not _is_loopback(request.headers.get("host", "")):
        # A name of the page's own that was made to mean this machine.
        raise PermissionDeniedError("the Host is not this machine: use 127.0.0.1, [::1] or localhost")
    if "origin" in request.headers or request.headers.get("sec-fetch-site", "none") != "none":
        raise PermissionDeniedError("web pages may not use this: a browser has sent it for one")


def _is_loopback(host: str) -> bool:
    try:
        name = URL(f"http://{host}").host or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
