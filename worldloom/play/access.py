"""Access control of the page: this machine without a token, other machines with one."""

import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection


@dataclass(frozen=True)
class Access:
    """Accepts pages of the server's own origin; with a `token`, only those that send it."""

    token: str | None = None

    def refuses(self, connection: HTTPConnection) -> str | None:
        """The reason to refuse a connection, or None. A page of another site must not control this server."""
        page = connection.headers.get("origin")
        if self.token is None and not local(connection.url.hostname or ""):
            # Another site's name may resolve to this machine (DNS rebinding): its pages would share our origin.
            return f"{(connection.url.hostname or 'this host')[:100]} is not this machine: open the address that was printed"
        if page is not None and site(page) != connection.headers.get("host"):
            return f"a page of {page[:100]} may not play here"
        given = connection.query_params.get("token", "")
        if self.token is not None and not hmac.compare_digest(given.encode(), self.token.encode()):
            return "the token is missing or wrong: open the address that `worldloom play` printed"
        return None


def site(address: str) -> str | None:
    """Host and port of an address; None if it is not valid."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return None


def local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: 127.evil.example is one
        return host == "localhost"


def needs_token(host: str, given: str | None) -> str | None:
    """The token for `host`: the given one; else none on this machine and a new one elsewhere."""
    return given if given or local(host) else secrets.token_urlsafe(16)
