"""What a Swift URL says: which container, through which Keystone, and what of it.

::

    swift://<user>+<tenant>:<password>@<keystone-host>[:port][/path]?<container>
           [&prefix=…][&delimiter=/][&region=…][&domain=…]

``swift`` and ``swt`` reach Keystone over http, ``swifts`` and ``swts`` over https.
Where Swift itself is, and how to speak to it, Keystone's catalogue says.

Guarantees: a URL that can't be meant so raises
:class:`~poller_core.errors.InvalidUrl`, which says what is missing, with an
example and without the user info of what was given; the URL of an object holds
its name without loss, and no credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from ...errors import InvalidUrl
from ...url import Url

__all__ = ["NOWHERE", "SCHEMES", "Location", "locate"]

#: How Keystone is reached, by the scheme of the URL.
SCHEMES = {"swift": "http", "swt": "http", "swifts": "https", "swts": "https"}

#: Swift's own limits, in bytes of UTF-8; a cluster can lower them.
_LONGEST_CONTAINER = 256

_KNOWN = {
    "prefix": "only objects whose name begins so",
    "delimiter": "'/': only objects directly below the prefix, no recursion",
    "region": "the region of the catalogue in which Swift is",
    "domain": "the Keystone domain of user and project",
}


@dataclass(frozen=True)
class Location:
    """A container, and what of it is meant."""

    url: Url  #: as given
    container: str
    prefix: str = ""
    recurse: bool = True  #: False: only names without a further ``/`` behind the prefix
    region: str | None = None
    domain: str | None = None
    user: str | None = None
    tenant: str | None = None  #: in Keystone's words of today: the project
    password: str | None = field(default=None, repr=False)

    @property
    def auth_url(self) -> str | None:
        """Where to authenticate, or None if the URL names no host."""
        url = self.url
        if not url.hostname:
            return None
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        port = "" if url.port is None else f":{url.port}"
        return f"{SCHEMES[url.scheme]}://{host}{port}{url.path}"

    @property
    def version(self) -> str | None:
        """The version of the authentication that the path names: ``"1"``, ``"2"``, ``"3"``, or None."""
        last = self.url.path.rstrip("/").rpartition("/")[2].lower()
        return {"v1": "1", "v1.0": "1", "v2": "2", "v2.0": "2", "v3": "3", "v3.0": "3"}.get(last)

    def subjects(self) -> Callable[[bytes], Url]:
        """A function from the name of an object to its URL."""
        url = self.url.without_credentials()
        region = f"&region={quote(self.region, safe='')}" if self.region else ""
        base = str(url).partition("?")[0] + f"?{quote(self.container, safe='')}{region}&name="

        def subject(name: bytes) -> Url:
            return Url(base + quote(name, safe="/"))

        return subject


def _example(url: Url) -> str:
    return f"'{url.scheme}://alice+demo:secret@keystone.example.org:5000/v3?inbox'"


def locate(url: Url) -> Location:
    """Take a URL apart.

    :raises InvalidUrl: if it names no container, has a query that means nothing, or user info by half.
    """
    shown = f"{str(url.without_credentials())!r}"
    expected = f"expected a URL such as {_example(url)}"
    if url.fragment:
        raise InvalidUrl(f"{shown} has a fragment, '#…', which means nothing here; write '#' as %23")
    if not url.hostname and (url.path or url.username is not None):
        raise InvalidUrl(f"{shown} names no host of Keystone; {expected}")
    container, query = _query(url, shown, expected)
    user, tenant, password = _user_info(url, shown, expected)
    return Location(
        url=url,
        container=container,
        prefix=query.get("prefix", ""),
        recurse="delimiter" not in query,
        region=query.get("region"),
        domain=query.get("domain"),
        user=user,
        tenant=tenant,
        password=password,
    )


def _query(url: Url, shown: str, expected: str) -> tuple[str, dict[str, str]]:
    containers: list[str] = []
    query: dict[str, str] = {}
    for name, value in url.query_items:
        if value is None:
            containers.append(name)
        elif name == "container":
            raise InvalidUrl(f"{shown}: the container stands in the query by itself, as in '?{value}'")
        elif name == "name":
            raise InvalidUrl(
                f"{shown} is the URL of one object; give the container's, and &prefix=… if it is to be less"
            )
        elif name not in _KNOWN:
            known = "; ".join(f"{key}= ({what})" for key, what in _KNOWN.items())
            raise InvalidUrl(f"{shown} has {name!r} in its query, which means nothing; known are: {known}")
        elif name in query:
            raise InvalidUrl(f"{shown} has {name!r} twice")
        elif not value:
            raise InvalidUrl(f"{shown} has {name!r} without a value; leave it out")
        else:
            query[name] = value
    if len(containers) > 1:
        raise InvalidUrl(f"{shown} names {len(containers)} containers; a poller watches one. {expected}")
    if not containers or not containers[0]:
        raise InvalidUrl(f"{shown} names no container: it stands behind the '?'. {expected}")
    container = containers[0]
    if "/" in container:
        raise InvalidUrl(
            f"{shown}: the name of a container holds no '/'. Objects below a pseudo-directory are selected "
            f"by '?{container.partition('/')[0]}&prefix={container.partition('/')[2]}'"
        )
    if len(container.encode("utf-8", "replace")) > _LONGEST_CONTAINER:
        raise InvalidUrl(f"{shown}: the name of a container has at most {_LONGEST_CONTAINER} bytes")
    for text in (container, *query.values()):
        if "\ufffd" in text or "\0" in text:
            raise InvalidUrl(f"{shown}: names in Swift are UTF-8 without NUL, percent-encoded")
    if query.get("delimiter", "/") != "/":
        raise InvalidUrl(f"{shown}: the one delimiter is '/', which stands for no recursion")
    return container, query


def _user_info(url: Url, shown: str, expected: str) -> tuple[str | None, str | None, str | None]:
    names = url.user_names
    if not names and url.password is None:
        return None, None, None
    # A user's name may hold a plus that was not encoded (alice+x@example.org); a tenant's hardly.
    user, tenant = ("+".join(names[:-1]), names[-1]) if len(names) > 1 else ("".join(names), None)
    if not user or tenant == "":
        raise InvalidUrl(
            f"{shown}: its user info lacks the {'tenant' if user else 'user'}; {expected}, or none at all, "
            f"with OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME in the environment"
        )
    if not url.password:
        raise InvalidUrl(
            f"{shown}: its user info has no password; {expected}, or leave the user info out and keep the "
            f"credentials in the environment (OS_…) or in clouds.yaml"
        )
    return user, tenant, url.password


#: For who authenticates only. A container has to be there; it is not asked for, and is in no error.
NOWHERE = locate(Url("swift://?any"))
