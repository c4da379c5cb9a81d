"""What differs between the clouds: the addresses of their buckets, their options, and where their keys come from.

It must not send anything: a store is made here and asked in remote.py. The environment of each cloud is read by
PyPI `obstore` itself (tried: 0.12); only what it does not know is found here.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import mask_url
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CONNECT_TIMEOUT_S, READ_TIMEOUT_S, REQUEST_TIMEOUT_S = 10, 30, 300
RETRY_FOR_S = 60
"""How long a request to a store is tried again, unless `storage.retry_for_s` says so; the library's own is 180 s."""

_MANY = 10_000
"""Tries that no request comes to: the time is what bounds them."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)/*(.*)", re.DOTALL)
_TIMEOUTS = ("connect_timeout", "read_timeout", "timeout")
_CLIENT_OPTIONS = ("allow_http", "allow_invalid_certificates", "proxy_url", "user_agent", *_TIMEOUTS)
_OWN_OPTIONS = ("profile", "retry_for_s")
_ENDPOINTS = {
    "s3": ("endpoint", "endpoint_url", "aws_endpoint_url_s3", "aws_endpoint_url", "aws_endpoint"),
    "az": ("endpoint", "azure_storage_endpoint", "azure_endpoint"),
}
_ACCOUNTS = {"az": ("account_name", "azure_storage_account_name")}
_KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")


@dataclass(frozen=True, slots=True)
class Address:
    """`scheme://bucket/prefix`; the prefix has no slash at its ends and is taken as it stands, not percent-decoded."""

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        """The address of the prefix; with it, `/` and a key make the address of an object."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


def is_remote(uri: str) -> bool:
    """True when the address is one of an object store."""
    found = _ADDRESS.match(uri)
    return found is not None and found[1].lower() in REMOTE_SCHEMES


def lacks_slashes(uri: str) -> bool:
    """True for a text that begins as an address but for the `//`: `s3:bucket/prefix`, which is no folder either."""
    scheme, colon, rest = uri.partition(":")
    return bool(colon) and not rest.startswith("//") and scheme.lower() in (*REMOTE_SCHEMES, "file")


def parse_address(uri: str) -> Address:
    """The parts of an object store's address; ConfigError when it has no bucket, or holds a key."""
    found = _ADDRESS.match(uri)
    if found is None or found[1].lower() not in REMOTE_SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in REMOTE_SCHEMES)
        raise ConfigError(f"{mask_url(uri)!r} is no object store's address, need one of {known}")
    scheme, bucket, prefix = found[1].lower(), found[2], found[3].strip("/")
    if "@" in bucket or mask_url(uri) != uri:
        raise ConfigError(f"{scheme}://…: the address holds a user or a key; those belong in the environment")
    if not bucket:
        raise ConfigError(f"{uri!r} names no bucket, need {scheme}://bucket/prefix")
    return Address(scheme, bucket, prefix)


def build(address: Address, options: Mapping[str, Any], *, uploads: bool = False) -> ObjectStore:
    """The store of an address; ConfigError for an option it does not know or a profile that is not there.

    `options` stand over the environment's: `endpoint`, `region`, `profile` (of the AWS files), `retry_for_s`, and every
    key of the cloud's own that the library has (`skip_signature`, `account_name`, `service_account`, …). `uploads`: for
    what takes long to send, until when no answer comes; the time of the whole request alone is bounded.
    """
    import obstore.exceptions
    from obstore.store import AzureStore, GCSStore, S3Store

    made: Mapping[str, Callable[..., ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    retry_for_s = options.get("retry_for_s", RETRY_FOR_S)
    if not isinstance(retry_for_s, int | float) or not 0 <= retry_for_s <= 3600:
        raise ConfigError(f"storage.retry_for_s: got {retry_for_s!r}, need a number of seconds from 0 to 3600")
    config = _config(address.scheme, options)
    try:
        return made[address.scheme](
            address.bucket,
            prefix=address.prefix or None,
            config=config,
            client_options=_client_options(address.scheme, config, options, uploads=uploads),
            retry_config={"retry_timeout": timedelta(seconds=retry_for_s), "max_retries": _MANY},
        )
    except (obstore.exceptions.BaseError, ValueError, TypeError) as cause:
        raise ConfigError(f"{address}: no store with the options {sorted(options)}: {said(cause)}") from cause


def service_of(uri: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells the service behind an address from others, which may have a bucket of the same name."""
    scheme = parse_address(uri).scheme
    config = _config(scheme, options)
    return scheme, *(_said_of(names.get(scheme, ()), config).rstrip("/") for names in (_ENDPOINTS, _ACCOUNTS))


def _config(scheme: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the cloud itself: those of its files too, which the others outrank."""
    config = {key: value for key, value in options.items() if key not in (*_CLIENT_OPTIONS, *_OWN_OPTIONS)}
    return {**_aws_files(options.get("profile")), **config} if scheme == "s3" else config


def _said_of(names: Iterable[str], config: Mapping[str, Any]) -> str:
    """What the options, or else the environment, say under the first of these names that they have."""
    given = {key.lower(): value for key, value in config.items()}
    variables = [name.upper() for name in names if name.startswith(("aws_", "azure_"))]
    found = [*(given.get(name) for name in names), *(os.environ.get(name) for name in variables)]
    return next((str(said) for said in found if said), "")


def _client_options(
    scheme: str, config: Mapping[str, Any], options: Mapping[str, Any], *, uploads: bool
) -> dict[str, Any]:
    """How requests are sent: bounded in time, and without TLS only to an endpoint that says http:// itself."""
    usual = {
        "allow_http": _said_of(_ENDPOINTS.get(scheme, ()), config).startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=READ_TIMEOUT_S),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
    }
    found = {**usual, **{key: options[key] for key in _CLIENT_OPTIONS if key in options}}
    return {key: value for key, value in found.items() if not (uploads and key == "read_timeout")}


def _aws_files(profile: str | None) -> dict[str, str]:
    """What a profile of ~/.aws says: keys, region, endpoint; without a name nothing if the environment has keys."""
    name = profile or os.environ.get("AWS_PROFILE")
    if name is None and any(os.environ.get(variable) for variable in _KEY_VARIABLES):
        return {}
    found: dict[str, str] = {}
    for path, section in _aws_sections(name or "default"):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as cause:
            raise ConfigError(f"{path}: cannot be read as a profile file") from cause
        if parser.has_section(section):
            found.update(parser.items(section))
    if profile and not found:
        raise ConfigError(f"storage.profile: got {profile!r}, which is in neither of the AWS files")
    if name is not None and found and "aws_access_key_id" not in found:
        raise ConfigError(
            f"the AWS profile {name!r} has no aws_access_key_id; a profile with a role, SSO or a process is not read:"
            " export its keys (`aws configure export-credentials --format env`)"
        )
    names = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
        "region": "region",
        "endpoint_url": "endpoint",
    }
    return {own: found[theirs] for theirs, own in names.items() if theirs in found}


def _aws_sections(name: str) -> list[tuple[Path, str]]:
    """The files and the section of each that tell of a profile; later ones outrank."""
    home = Path.home() / ".aws"
    config = Path(os.environ.get("AWS_CONFIG_FILE") or home / "config")
    credentials = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials")
    return [(config, name if name == "default" else f"profile {name}"), (credentials, name)]


_MESSAGE_CHARS = 2000
"""A store's answer is cut before it is searched: a pattern takes the square of its length."""


def said(cause: BaseException) -> str:
    """The library's message in one line: its own first line, without the tail for its developers or a signature.

    Of a store's XML only code and message stay.
    """
    text = str(cause)[:_MESSAGE_CHARS].split("\n\nDebug source", 1)[0].strip()
    text = re.sub(r"(https?://[^\s?'\"]*)\?[^\s'\"]*", r"\1?…", re.sub(r"\s+", " ", text))
    return _without_xml(text)[:400]


def _without_xml(text: str) -> str:
    """The text with code and message in place of the XML of an S3 error."""
    error = text.find("<Error>")
    code, message = (_element(text, name, start=error) for name in ("Code", "Message"))
    if error < 0 or code is None or message is None:
        return text
    prolog = text.rfind("<?xml", 0, error)
    return f"{text[: error if prolog < 0 else prolog]}{code}: {message}"


def _element(text: str, name: str, *, start: int) -> str | None:
    """The content of the first element of this name."""
    begin = text.find(f"<{name}>", max(start, 0))
    end = text.find(f"</{name}>", begin)
    return text[begin + len(name) + 2 : end] if 0 <= begin < end else None


REMOTE_SCHEMES = ("s3", "gs", "az")
"""The addresses of object stores: s3://bucket/…, gs://bucket/…, az://container/… (the account from AZURE_…)."""
