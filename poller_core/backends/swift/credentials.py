"""Which credentials a Swift poller uses, and what is made of them.

The first of these that is there is used, and no other:

1. ``session=``, a keystoneauth1 session, or ``auth=``, one of its plugins;
2. ``credentials=``, a mapping with the names of the ``OS_*`` variables in small
   letters and without ``OS_`` (``username``, ``password``, ``project_name``,
   ``application_credential_id``, ``auth_type`` …);
3. user and password in the URL;
4. ``cloud=``, or ``OS_CLOUD``: an entry of ``clouds.yaml``, read by openstacksdk;
5. the variables ``OS_*`` of the environment;
6. ``ST_AUTH``, ``ST_USER`` and ``ST_KEY``, of TempAuth and its like. Before the
   ``OS_*`` ones if the URL's path ends in ``/v1.0``, as TempAuth's does.

Guarantees: nothing is sent anywhere from here; a secret is in no ``repr`` and no error;
an address with a secret in it is refused, since it would be logged and told.

Not guaranteed: that the credentials are right; the first request will tell.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import InvalidOption, InvalidUrl, PollerRefused
from ...url import redact
from .location import NOWHERE, Location

__all__ = ["Access", "check_address", "choose", "plugin"]

_PACKAGES = "pip install 'poller-core[swift]'"

#: Variables of the environment that hold a credential. Others, such as OS_REGION_NAME, are settings.
_TELLING = ("username", "user_id", "token", "application_credential_id", "application_credential_name")

#: Where the address of Keystone stands, by where credentials come from, and an example.
_IN_CREDENTIALS = ("credentials['auth_url']", "'https://keystone.example.org:5000/v3'")
_IN_OS = ("OS_AUTH_URL", "https://keystone.example.org:5000/v3")
_IN_ST = ("ST_AUTH", "https://swift.example.org/auth/v1.0")

#: What python-novaclient and its contemporaries called them.
_OLD_NAMES = {"tenant_name": "project_name", "tenant_id": "project_id", "user_name": "username"}

#: What a token is asked to be valid for.
_SCOPE = ("project_", "domain_", "system_scope", "trust_id")

#: By the version that a URL's path names: the plugins for a password and for a token.
_PLUGINS = {"1": ("v1password", "v1token"), "2": ("v2password", "v2token"), "3": ("v3password", "v3token")}


@dataclass(frozen=True)
class Access:
    """How to authenticate.

    Of ``session``, ``auth``, ``cloud`` and ``options`` one is given.
    """

    way: str  #: in words, for people
    region: str | None = None
    interface: str | None = None
    auth_url: str | None = None
    auth_type: str = ""  #: the name of a keystoneauth1 plugin
    options: Mapping[str, str] = field(default_factory=dict, repr=False)  #: for the plugin; secret
    session: Any = None
    auth: Any = None
    cloud: str | None = None

    def digest(self, salt: bytes) -> bytes:
        """Equal for the same credentials. Of no use to who does not have the salt."""
        text = json.dumps([self.auth_url, self.auth_type, sorted(self.options.items()), self.cloud])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=salt).digest()


def choose(
    location: Location,
    *,
    session: Any = None,
    auth: Any = None,
    credentials: Mapping[str, object] | None = None,
    cloud: str | None = None,
    region: str | None = None,
    interface: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Access:
    """What to authenticate with.

    :param environ: the variables of the environment.
    :raises InvalidOption: if there is nothing, too little, or something that can't be.
    """
    given = [name for name, value in _given(session, auth, credentials, cloud).items() if value is not None]
    if len(given) > 1:
        raise InvalidOption(f"{' and '.join(given)} are ways to give credentials; give one of them")
    if given and location.user is not None:
        raise InvalidOption(
            f"there are credentials in the URL, and in {given[0]}; give them in one place, best not the URL"
        )
    settings = _settings(environ, "OS_")
    if location.region and region and location.region != region:
        raise InvalidOption(f"region={region!r}, but the URL says region={location.region!r}; leave one out")
    usual = {
        "region": location.region or region or settings.get("region_name"),
        "interface": _interface(interface or settings.get("interface") or settings.get("endpoint_type")),
    }
    if session is not None or auth is not None:
        return _ready(session, auth, usual)
    if credentials is not None:
        return _from_options(location, _texts(credentials), usual, "credentials=…", _IN_CREDENTIALS)
    if location.user is not None:
        return _from_url(location, usual)
    if cloud is None and location.version != "1":
        cloud = settings.get("cloud")
    if cloud is not None:
        named = {**usual, "region": location.region or region}  # else the cloud's own
        return Access(f"the cloud {cloud!r} of clouds.yaml", cloud=cloud, **_only(named))
    return _from_environment(location, environ, usual)


def _given(session: Any, auth: Any, credentials: Any, cloud: Any) -> dict[str, Any]:
    return {"session": session, "auth": auth, "credentials": credentials, "cloud": cloud}


def _only(usual: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usual.items() if value is not None}


def _interface(value: str | None) -> str | None:
    if not value:
        return None
    word = str(value).lower().removesuffix("url")
    if word not in ("public", "internal", "admin"):
        raise InvalidOption(f"interface={value!r}: expected 'public', 'internal' or 'admin'")
    return word


def _settings(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    # A variable that is set to nothing counts as not set, as it does for OpenStack's own programs.
    return {
        _OLD_NAMES.get(name := key.removeprefix(prefix).lower(), name): value
        for key, value in environ.items()
        if key.startswith(prefix) and value
    }


def _texts(credentials: Mapping[str, object]) -> dict[str, str]:
    if not isinstance(credentials, Mapping):
        raise InvalidOption(
            f"credentials: expected a mapping such as {{'username': …, 'password': …, 'project_name': …}}, "
            f"not {type(credentials).__name__}"
        )
    found: dict[str, str] = {}
    for name, value in credentials.items():
        if value is None or value == "":
            continue
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidOption(f"credentials: {name!r} has to be a text")
        plain = name.lower().removeprefix("os_")
        found[_OLD_NAMES.get(plain, plain)] = value
    return found


def _ready(session: Any, auth: Any, usual: Mapping[str, Any]) -> Access:
    if session is not None:
        if not hasattr(session, "get_endpoint") or not hasattr(session, "request"):
            raise InvalidOption(
                f"session: expected a keystoneauth1.session.Session, not {type(session).__name__}"
            )
        if getattr(session, "auth", None) is None:
            raise InvalidOption("session: it has no auth plugin; make it with Session(auth=…)")
        return Access("a session of the caller's", session=session, **_only(usual))
    if not hasattr(auth, "get_token") or not hasattr(auth, "get_endpoint"):
        raise InvalidOption(f"auth: expected an auth plugin of keystoneauth1, not {type(auth).__name__}")
    return Access("an auth plugin of the caller's", auth=auth, **_only(usual))


def _from_url(location: Location, usual: Mapping[str, Any]) -> Access:
    options = {"username": location.user or "", "password": location.password or ""}
    if location.tenant is not None:
        options["project_name"] = location.tenant
    elif location.version != "1":
        raise InvalidUrl(
            f"{str(location.url.without_credentials())!r}: its user info names a user and no tenant "
            f"(project); expected '<user>+<tenant>:<password>@', such as 'alice+demo:secret@'"
        )
    return _from_options(location, options, usual, "the user info of the URL", _IN_OS)


def _from_environment(location: Location, environ: Mapping[str, str], usual: Mapping[str, Any]) -> Access:
    keystone, tempauth = _settings(environ, "OS_"), _settings(environ, "ST_")
    has_keystone = any(name in keystone for name in (*_TELLING, "auth_type"))
    if tempauth.get("user") and tempauth.get("key") and (location.version == "1" or not has_keystone):
        options = {"username": tempauth["user"], "password": tempauth["key"], "auth_type": "v1password"}
        if "auth" in tempauth:
            options["auth_url"] = tempauth["auth"]
        return _from_options(location, options, usual, "ST_USER and ST_KEY of the environment", _IN_ST)
    if has_keystone:
        return _from_options(location, keystone, usual, "OS_… of the environment", _IN_OS)
    if location is NOWHERE:
        missing, others = "there are no credentials:", "or cloud='…'"
    else:
        missing = f"there are no credentials for {str(location.url)!r}: none in the URL, and"
        others = "cloud='…', auth=… or session=…"
    raise InvalidOption(
        f"{missing} neither OS_USERNAME, OS_APPLICATION_CREDENTIAL_ID, OS_TOKEN, OS_CLOUD nor ST_USER in the "
        f"environment. Set those, or give credentials={{…}}, {others}"
    )


def _from_options(
    location: Location,
    options: Mapping[str, str],
    usual: Mapping[str, Any],
    source: str,
    address: tuple[str, str],
) -> Access:
    """The plugin that fits what is given, and what it takes of that."""
    plain = dict(options)
    auth_url = location.auth_url
    if auth_url is None:
        auth_url = plain.get("auth_url", "")
        check_address(auth_url, *address)
    if not auth_url:
        name, example = address
        also = (
            "" if location is NOWHERE else f", and {str(location.url.without_credentials())!r} names no host"
        )
        raise InvalidOption(
            f"{name} is missing{also}: it is not known where to authenticate; expected the address of "
            f"Keystone, such as {example}"
        )
    plain["auth_url"] = auth_url
    version = location.version or _version(auth_url)
    auth_type = plain.pop("auth_type", "") or _auth_type(plain, version)
    if auth_type == "v1password":
        _as_tempauth(plain, from_url=location.user is not None)
    elif location.domain:
        plain = {name: value for name, value in plain.items() if not name.endswith("_domain_id")}
        plain |= {"user_domain_name": location.domain, "project_domain_name": location.domain}
    if auth_type == "v3applicationcredential":
        # It belongs to one project, and Keystone refuses to be told which.
        plain = {name: value for name, value in plain.items() if not name.startswith(_SCOPE)}
    elif auth_type in ("password", "v3password", "token", "v3token"):
        _with_domains(plain, auth_type)
    who = plain.get("username") or plain.get("application_credential_name")
    where = plain.get("project_name") or plain.get("project_id")
    whom = f"{f' of {who}' if who else ''}{f' in {where}' if where else ''}"
    return Access(
        f"{source}: {auth_type}{whom} at {auth_url}",
        auth_url=auth_url,
        auth_type=auth_type,
        options=plain,
        **_only(usual),
    )


def check_address(auth_url: str, name: str, example: str) -> None:
    """Refuse an address that holds user info, or what looks like it.

    The libraries below write it into their logs, and we into our errors.

    :param name: what it was given as.
    :raises InvalidOption: without a word of what was given.
    """
    if "@" in auth_url or redact(auth_url) != auth_url:
        raise InvalidOption(
            f"{name}: user, password and token don't belong into the address; give them by themselves, and "
            f"of the address no more than {example}"
        )


def _version(auth_url: str) -> str | None:
    last = auth_url.rstrip("/").rpartition("/")[2].lower()
    return {"v1": "1", "v1.0": "1", "v2.0": "2", "v3": "3"}.get(last)


def _auth_type(options: Mapping[str, str], version: str | None) -> str:
    if "application_credential_id" in options or "application_credential_name" in options:
        return "v3applicationcredential"
    if version is None:
        asked = options.get("identity_api_version") or options.get("auth_version") or ""
        version = asked.partition(".")[0]
    if "token" in options and "password" not in options:
        return _PLUGINS[version][1] if version in ("2", "3") else "token"
    return _PLUGINS[version][0] if version in _PLUGINS else "password"


def _as_tempauth(options: dict[str, str], from_url: bool) -> None:
    """TempAuth's users are called ``account:user``; in a URL ``user+account`` means that, too."""
    account = options.pop("project_name", None) if from_url else None
    if account:
        options["username"] = f"{account}:{options['username']}"


def _with_domains(options: dict[str, str], auth_type: str) -> None:
    """A domain has to be named; Keystone makes one with the id "default" when it is set up."""
    usual = options.get("default_domain_id") or ("" if "default_domain_name" in options else "default")
    if not auth_type.startswith("v3"):
        # The generic plugin leaves it out where Keystone speaks version 2.0, which knows no domains.
        if usual and not any(name.endswith(("_domain_id", "_domain_name")) for name in options):
            options["default_domain_id"] = usual
        return
    if "username" in options and not {"user_domain_id", "user_domain_name"} & options.keys():
        options["user_domain_id"] = usual or "default"
    if "project_name" in options and not {"project_domain_id", "project_domain_name"} & options.keys():
        options["project_domain_id"] = usual or "default"


def plugin(access: Access) -> Any:
    """The keystoneauth1 plugin.

    :raises PollerRefused: if a package is missing.
    :raises InvalidOption: if there is no such plugin, or it lacks an option.
    """
    try:
        from keystoneauth1 import exceptions, loading
    except ImportError:
        raise PollerRefused(f"keystoneauth1 is not installed: {_PACKAGES}") from None
    if access.auth_type == "v1password":
        try:
            from swiftclient.authv1 import PasswordLoader
        except ImportError:
            raise PollerRefused(f"python-swiftclient is not installed: {_PACKAGES}") from None
        loader: Any = PasswordLoader()
    else:
        try:
            loader = loading.get_plugin_loader(access.auth_type)
        except exceptions.NoMatchingPlugin:
            raise InvalidOption(
                f"there is no way to authenticate called {access.auth_type!r}; known are for instance "
                f"password, token, v3applicationcredential and v1password"
            ) from None
    options: dict[str, str] = {}
    for option in loader.get_options():
        names = [
            option.dest,
            *(old.dest for old in option.deprecated),
            option.dest.replace("tenant", "project"),
        ]
        value = next((access.options[name] for name in names if name in access.options), None)
        if value is not None:
            options[option.dest] = value
    try:
        return loader.load_from_options(**options)
    except (exceptions.MissingRequiredOptions, exceptions.OptionError) as error:
        raise InvalidOption(f"{access.way}: {error}") from None
    except TypeError as error:
        raise InvalidOption(f"{access.way}: this does not fit together ({error})") from None
