"""Differences between the clouds: the addresses of buckets, their options, and the sources of credentials.

It must not send requests: a store is built here and used in remote.py. PyPI `obstore` (tried: 0.12) reads the
environment of each cloud itself; only sources that it does not support are read here.
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
from pipeline.config.texts import shorten
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 30
REQUEST_TIMEOUT_S = 300
RETRY_FOR_S = 60
"""Default of `storage.retry_for_s`, the time for which a request is retried; the library's own default is 180 s."""

_MANY = 10_000
"""Maximum number of retries, never reached: RETRY_FOR_S limits them."""

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
    """`scheme://bucket/prefix`; the prefix has no slash at its ends and is not percent-decoded."""

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        """Return the address of the prefix; appending `/` and a key gives the address of an object."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


def is_remote(uri: str) -> bool:
    """Return whether the URI is the address of an object store."""
    match = _ADDRESS.match(uri)
    return match is not None and match[1].lower() in REMOTE_SCHEMES


def lacks_slashes(uri: str) -> bool:
    """Return True for an address without its `//`, such as `s3:bucket/prefix`, which is hardly meant as a folder."""
    scheme, colon, remainder = uri.partition(":")
    return bool(colon) and not remainder.startswith("//") and scheme.lower() in (*REMOTE_SCHEMES, "file")


def parse_address(uri: str) -> Address:
    """Return the parts of an object store's address; ConfigError when it has no bucket, or contains credentials."""
    match = _ADDRESS.match(uri)
    if match is None or match[1].lower() not in REMOTE_SCHEMES:
        accepted = ", ".join(f"{scheme}://" for scheme in REMOTE_SCHEMES)
        raise ConfigError(f"{mask_url(uri)!r} is not the address of an object store, need one of {accepted}")
    scheme = match[1].lower()
    bucket = match[2]
    prefix = match[3].strip("/")
    if "@" in bucket or mask_url(uri) != uri:
        raise ConfigError(f"{scheme}://…: the address holds a user or a key; those belong in the environment")
    if not bucket:
        raise ConfigError(f"{uri!r} names no bucket, need {scheme}://bucket/prefix")
    return Address(scheme, bucket, prefix)


def build(address: Address, options: Mapping[str, Any], *, uploads: bool = False) -> ObjectStore:
    """Build the store of an address; ConfigError for an unknown option or a missing profile.

    `options` override the environment: `endpoint`, `region`, `profile` (of the AWS files), `retry_for_s`, and every
    option of the cloud that the library supports (`skip_signature`, `account_name`, `service_account`, …). `uploads`:
    without a read timeout, as no reply comes before a large upload ends; the timeout of the whole request applies.
    """
    import obstore.exceptions
    from obstore.store import AzureStore, GCSStore, S3Store

    classes: Mapping[str, Callable[..., ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    retry_for_s = options.get("retry_for_s", RETRY_FOR_S)
    if not isinstance(retry_for_s, int | float) or not 0 <= retry_for_s <= 3600:
        raise ConfigError(f"storage.retry_for_s: got {retry_for_s!r}, need a number of seconds from 0 to 3600")
    config = _config(address.scheme, options)
    try:
        return classes[address.scheme](
            address.bucket,
            prefix=address.prefix or None,
            config=config,
            client_options=_client_options(address.scheme, config, options, uploads=uploads),
            retry_config={"retry_timeout": timedelta(seconds=retry_for_s), "max_retries": _MANY},
        )
    except (obstore.exceptions.BaseError, ValueError, TypeError) as cause:
        raise ConfigError(f"{address}: no store with the options {sorted(options)}: {error_text(cause)}") from cause


def service_of(uri: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the identity of the service behind an address: two services may have a bucket of the same name."""
    scheme = parse_address(uri).scheme
    config = _config(scheme, options)
    return scheme, *(_first_value(names.get(scheme, ()), config).rstrip("/") for names in (_ENDPOINTS, _ACCOUNTS))


def _config(scheme: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for the cloud, over those of its profile files."""
    config = {key: value for key, value in options.items() if key not in (*_CLIENT_OPTIONS, *_OWN_OPTIONS)}
    return {**_aws_files(options.get("profile")), **config} if scheme == "s3" else config


def _first_value(names: Iterable[str], config: Mapping[str, Any]) -> str:
    """Return the first value under these names in the options, else in the environment; empty when none is set."""
    by_name = {key.lower(): value for key, value in config.items()}
    variables = [name.upper() for name in names if name.startswith(("aws_", "azure_"))]
    values = [*(by_name.get(name) for name in names), *(os.environ.get(name) for name in variables)]
    return next((str(value) for value in values if value), "")


def _client_options(
    scheme: str, config: Mapping[str, Any], options: Mapping[str, Any], *, uploads: bool
) -> dict[str, Any]:
    """Return the HTTP options: timeouts, and TLS unless the endpoint begins with http://."""
    defaults = {
        "allow_http": _first_value(_ENDPOINTS.get(scheme, ()), config).startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=READ_TIMEOUT_S),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
    }
    merged = {**defaults, **{key: options[key] for key in _CLIENT_OPTIONS if key in options}}
    return {key: value for key, value in merged.items() if not (uploads and key == "read_timeout")}


def _aws_files(profile: str | None) -> dict[str, str]:
    """Return keys, region and endpoint of a profile in ~/.aws; empty without a name if the environment has keys."""
    name = profile or os.environ.get("AWS_PROFILE")
    if name is None and any(os.environ.get(variable) for variable in _KEY_VARIABLES):
        return {}
    settings: dict[str, str] = {}
    for path, section in _aws_sections(name or "default"):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as cause:
            raise ConfigError(f"{path}: cannot be read as a profile file") from cause
        if parser.has_section(section):
            settings.update(parser.items(section))
    if profile and not settings:
        raise ConfigError(f"storage.profile: got {profile!r}, which is in neither of the AWS files")
    if name is not None and settings and "aws_access_key_id" not in settings:
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
    return {option: settings[aws_name] for aws_name, option in names.items() if aws_name in settings}


def _aws_sections(name: str) -> list[tuple[Path, str]]:
    """Return the files and sections of a profile; later ones override earlier ones."""
    home = Path.home() / ".aws"
    config = Path(os.environ.get("AWS_CONFIG_FILE") or home / "config")
    credentials = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials")
    return [(config, name if name == "default" else f"profile {name}"), (credentials, name)]


_MESSAGE_CHARS = 2000
"""A store's message is truncated before it is searched: a pattern may take quadratic time."""


def error_text(cause: BaseException) -> str:
    """Return the library's message in one line, without debug output and URL signatures.

    The XML of a store is reduced to code and message.
    """
    text = str(cause)[:_MESSAGE_CHARS].split("\n\nDebug source", 1)[0].strip()
    text = re.sub(r"(https?://[^\s?'\"]*)\?[^\s'\"]*", r"\1?…", re.sub(r"\s+", " ", text))
    return shorten(_without_xml(text), 400)


def _without_xml(text: str) -> str:
    """Return the text with code and message in place of the XML of an S3 error."""
    error = text.find("<Error>")
    code, message = (_element(text, name, start=error) for name in ("Code", "Message"))
    if error < 0 or code is None or message is None:
        return text
    prolog = text.rfind("<?xml", 0, error)
    return f"{text[: error if prolog < 0 else prolog]}{code}: {message}"


def _element(text: str, name: str, *, start: int) -> str | None:
    """Return the content of the first element of this name."""
    begin = text.find(f"<{name}>", max(start, 0))
    end = text.find(f"</{name}>", begin)
    return text[begin + len(name) + 2 : end] if 0 <= begin < end else None


REMOTE_SCHEMES = ("s3", "gs", "az")
"""URL schemes of object stores: s3://bucket/…, gs://bucket/…, az://container/… (the account from AZURE_…)."""
