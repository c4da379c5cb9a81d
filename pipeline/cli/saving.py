"""Write a file for the user atomically: readers see all of it or nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import OutputError


def save(path: Path, lines: Iterable[str | bytes]) -> None:
    """Write a temporary file beside it and rename it when it is complete; OutputError when it cannot be written.

    A device or a pipe (`/dev/stdout`) is written to and never replaced, a link leads to the file that is.
    """
    temporary = None
    data = (line.encode() if isinstance(line, str) else line for line in lines)
    try:
        path = path if path.exists() and not path.is_file() else path.resolve()
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                device.writelines(data)
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.writelines(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as exc:
        raise OutputError(f"{path} cannot be written: {exc.strerror or exc}") from exc
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
