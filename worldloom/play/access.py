"""Who may open the page: this machine, and elsewhere those who know a token."""

import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection


@dataclass(frozen=True)
class Access:
    """Who may in: pages of our own address, and with a `token` those who know it."""

    token: str | None = None

    def refuses(self, connection: HTTPConnection) -> str | None:
        """Why a connection is refused, or None. A page of another site must not steer a server on this machine."""
        page = connection.headers.get("origin")
        if self.token is None and not local(connection.url.hostname or ""):
            # Another site's name may lead here (DNS rebinding), and its pages would then be of our own address.
            return (
                f"{(connection.url.hostname or 'nobody')[:100]} is not this machine: open the address that was printed"
            )
        if page is not None and site(page) != connection.headers.get("host"):
            return f"a page of {page[:100]} may not play here"
        given = connection.query_params.get("token", "")
        if self.token is not None and not hmac.compare_digest(given.encode(), self.token.encode()):
            return "the token is missing or wrong: open the address that `worldloom play` printed"
        return None


def site(address: str) -> str | None:
    """Host and port of an address, None of what is none."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return None


def local(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: 127.evil.example is one
        return host == "localhost"


def needs_token(host: str, given: str | None) -> str | None:
    """The token for an address: none on this machine unless one is given, elsewhere a new one."""
    return given if given or local(host) else secrets.token_urlsafe(16)
