"""Check that a store honours conditional writes, without which two runs could write at the same time.

It must not write a lock: it uses an object of its own beside the locks, and leaves it there.
"""

from __future__ import annotations

import secrets

from pipeline.errors import ConfigError, OutputError
from pipeline.output.store_errors import as_output_errors
from pipeline.stores import RemoteStore, StaleVersionError

KEY = ".lock-probe"
_NO_ETAG = '"00000000000000000000000000000000"'


def check_conditions(store: RemoteStore) -> None:
    """Raise ConfigError when the store refuses conditional writes (501) or ignores the condition.

    OutputError when it cannot be reached. A busy store is retried like for any other write.
    """
    try:
        _probe(store.without_retries())  # the library would retry a 501
    except OutputError:
        _probe(store)


def _probe(store: RemoteStore) -> None:
    with as_output_errors(str(store.address), opening=True):
        next(store.list(KEY), None)  # fails for a missing bucket: some stores create it with the first object
        for _ in range(2):
            try:
                store.create(KEY, secrets.token_hex(16).encode())
            except FileExistsError:
                break
        else:
            raise _ignored(store, "If-None-Match")
        try:
            store.replace(KEY, secrets.token_hex(16).encode(), etag=_NO_ETAG)
        except StaleVersionError:
            return
    raise _ignored(store, "If-Match")


def _ignored(store: RemoteStore, header: str) -> ConfigError:
    need = "a store with conditional writes, or an output in a folder"
    return ConfigError(
        f"{store.address}: the store ignores {header}: two runs could write to one output at the same time; need {need}"
        " (output.uri)"
    )
