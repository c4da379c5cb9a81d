"""The local store: listing a tree, opening a file, writing a file whole."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import stat
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import stores
from pipeline.errors import OutputError, TryLaterError
from pipeline.stores import (
    StaleVersionError,
    StoredFile,
    find_file,
    open_file,
    open_newest,
    printable,
    walk,
    write_atomic,
)
from pipeline.stores.folder_names import READ_TOGETHER
from pipeline.stores.local import UPCOMING


def names(root: Path, skip: Path | None = None) -> list[str]:
    return [file.relative for file in walk(root, skip=skip)]


def listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def fill(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def test_tree_is_listed_depth_first_by_name(tmp_path: Path) -> None:
    """Files are in name order, with a folder's files in its place."""
    fill(tmp_path, "b/2.txt", "b/1.txt", "a.txt", "c.txt", "b/deep/er/x.txt")
    assert names(tmp_path) == ["a.txt", "b/1.txt", "b/2.txt", "b/deep/er/x.txt", "c.txt"]


def test_deep_tree_is_listed(tmp_path: Path) -> None:
    """Its folders are nested beyond the recursion limit."""
    folders = [Path(f"{tmp_path}{'/d' * depth}") for depth in range(1, 1050)]
    for folder in folders:
        folder.mkdir()
    last = folders[-1] / "x.txt"
    last.touch()
    try:
        assert names(tmp_path) == ["d/" * 1049 + "x.txt"]
    finally:  # pytest's removal of temporary folders is recursive
        last.unlink()
        for folder in reversed(folders):
            folder.rmdir()


@pytest.mark.parametrize("sort_up_to", [4096, 100])
def test_names_are_announced_before_their_files(tmp_path: Path, sort_up_to: int) -> None:
    """Each path is announced once, with at most UPCOMING others, and before the file is inspected."""
    (tmp_path / "sub").mkdir()
    for number in range(150):
        (tmp_path / "sub" / f"{number}.txt").touch()
    (tmp_path / "z.txt").touch()
    announced: list[str] = []
    sizes: list[int] = []

    def upcoming(paths: list[str]) -> None:
        announced.extend(paths)
        sizes.append(len(paths))

    for file in walk(tmp_path, sort_up_to=sort_up_to, upcoming=upcoming):
        assert file.relative in announced
    expected = ["sub", "z.txt", *(f"sub/{number}.txt" for number in range(150))]
    assert sorted(announced) == sorted(expected)
    assert max(sizes) == UPCOMING
    assert READ_TOGETHER % UPCOMING == 0


def test_large_folder_is_listed_in_bounded_memory(tmp_path: Path) -> None:
    """Beyond the sorted size no name is lost or repeated."""
    for number in range(3000):
        (tmp_path / f"{number}.txt").touch()
    assert len({file.relative for file in walk(tmp_path, sort_up_to=100)}) == 3000
    tracemalloc.start()
    try:
        assert sum(1 for _ in walk(tmp_path, sort_up_to=100)) == 3000
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_folders_can_be_skipped(tmp_path: Path) -> None:
    """A refused or skipped folder is not entered."""
    fill(tmp_path, "a/1.txt", "out/2.txt", "no/3.txt")
    files = walk(tmp_path, enter=lambda relative: relative != "no", skip=tmp_path / "a" / ".." / "out")
    assert [file.relative for file in files] == ["a/1.txt"]


def test_version_is_size_and_mtime(tmp_path: Path) -> None:
    """An older file has one, which changes with its mtime."""
    fill(tmp_path, "a.txt")
    os.utime(tmp_path / "a.txt", ns=(0, 1_500_000_000))
    assert [file.version for file in walk(tmp_path, clock=lambda: 10.0)] == ["1-1500000000"]


@pytest.mark.parametrize("now", [101.0, 50.0])
def test_recent_file_has_no_version(tmp_path: Path, now: float) -> None:
    """An mtime in the last two seconds or in the future is not reliable."""
    fill(tmp_path, "a.txt")
    os.utime(tmp_path / "a.txt", (100, 100))
    assert [file.version for file in walk(tmp_path, clock=lambda: now)] == [None]


def test_links_out_of_the_root_are_skipped(tmp_path: Path) -> None:
    """They are counted, like dangling links and links to themselves."""
    root = tmp_path / "root"
    fill(tmp_path, "root/a.txt", "secret/s.txt", "root-beside/b.txt")
    (root / "file").symlink_to(tmp_path / "secret" / "s.txt")
    (root / "folder").symlink_to(tmp_path / "secret")
    (root / "prefix").symlink_to(tmp_path / "root-beside" / "b.txt")
    (root / "nowhere").symlink_to("missing")
    (root / "self").symlink_to("self")
    passed: list[str] = []
    assert [file.relative for file in walk(root, count_ignored=passed.append)] == ["a.txt"]
    assert passed == ["symlink"] * 5


def test_link_to_a_file_inside_is_listed(tmp_path: Path) -> None:
    """It has the link's name and the target's size."""
    fill(tmp_path, "a.txt")
    (tmp_path / "b.txt").symlink_to("a.txt")
    assert [(file.relative, file.size_bytes) for file in walk(tmp_path)] == [("a.txt", 1), ("b.txt", 1)]


def test_links_to_folders_cause_no_loops_or_duplicates(tmp_path: Path) -> None:
    """A folder listed in its own place is not listed again through a link, nor is a parent."""
    fill(tmp_path, "2024/a.txt", "2024/sub/b.txt")
    (tmp_path / "latest").symlink_to("2024")
    (tmp_path / "2024" / "up").symlink_to("..")
    (tmp_path / "2024" / "sub" / "self").symlink_to(".")
    assert names(tmp_path) == ["2024/a.txt", "2024/sub/b.txt"]


def test_mounted_config_map_is_listed(tmp_path: Path) -> None:
    """Links into a hidden folder of the root, as Kubernetes creates them, are followed once."""
    fill(tmp_path, "..2024_01/a.txt", "..2024_01/sub/b.txt")
    (tmp_path / "..2024_01" / "sub" / "again").symlink_to("../../..2024_01/sub")
    (tmp_path / "..data").symlink_to("..2024_01")
    (tmp_path / "a.txt").symlink_to("..data/a.txt")
    (tmp_path / "sub").symlink_to("..data/sub")
    visible = walk(tmp_path, enter=lambda relative: not relative.startswith("."))
    assert [file.relative for file in visible] == ["a.txt", "sub/b.txt"]


def test_link_into_a_skipped_folder_is_skipped(tmp_path: Path) -> None:
    """This holds under whatever name the link has."""
    fill(tmp_path, ".out/results.jsonl", "a.txt")
    (tmp_path / "latest").symlink_to(".out")
    (tmp_path / "r.jsonl").symlink_to(".out/results.jsonl")
    assert names(tmp_path, skip=tmp_path / ".out") == ["a.txt"]


def test_fifos_and_sockets_are_never_opened(tmp_path: Path) -> None:
    """They are skipped and counted."""
    os.mkfifo(tmp_path / "fifo.txt")
    passed: list[str] = []
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path is short
        try:
            server.bind("sock.txt")
        finally:
            os.chdir(here)
        assert list(walk(tmp_path, count_ignored=passed.append)) == []
    assert passed == ["special", "special"]


def test_file_replaced_by_a_fifo_does_not_hang(tmp_path: Path) -> None:
    """Opening it is an error at once."""
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(OSError, match="regular"):
        open_file(StoredFile(str(tmp_path / "a.txt"), "a.txt", 1, None))


@pytest.mark.parametrize("place", ["a.txt", "b", "b/c", "b/c/d.txt"])
@pytest.mark.parametrize("link", ["absolute", "relative"])
def test_link_created_after_the_listing_is_not_followed(tmp_path: Path, place: str, link: str) -> None:
    """This holds for every component of a listed path."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    fill(tmp_path, "root/a.txt", "root/b/c/d.txt", "outside/a.txt", "outside/b/c/d.txt")
    files = list(walk(root))
    (root / place).rename(tmp_path / "moved")
    target = outside / place
    (root / place).symlink_to(target if link == "absolute" else os.path.relpath(target, (root / place).parent))
    refused = [file.relative for file in files if file.relative.startswith(place)]
    for file in files:
        for opener in (open_file, open_newest):
            if file.relative not in refused:
                opener(file).close()
                continue
            with pytest.raises(OSError, match="is a link, which the listing did not find") as error:
                opener(file)
            assert error.value.errno == errno.ELOOP


def test_root_replaced_by_a_link_is_a_store_failure(tmp_path: Path) -> None:
    """It looks like an unmount, so the run waits and ends resumably."""
    root = tmp_path / "root"
    fill(tmp_path, "root/a.txt", "root/b/c.txt", "outside/a.txt", "outside/b/c.txt")
    files = list(walk(root))
    root.rename(tmp_path / "moved")
    root.symlink_to(tmp_path / "outside")
    for file, opener in itertools.product(files, (open_file, open_newest)):
        with pytest.raises(OSError, match="become a link") as error:
            opener(file)
        assert error.value.errno == errno.ESTALE and not isinstance(error.value, StaleVersionError)


def test_folder_replaced_by_a_link_is_not_listed(tmp_path: Path) -> None:
    """It counts as a link if it changes between its discovery and its listing."""
    root = tmp_path / "root"
    fill(tmp_path, "root/a.txt", "root/b/c.txt", "outside/secret.txt")

    def swap(relative: str) -> bool:
        (root / relative).rename(tmp_path / "moved")
        (root / relative).symlink_to(tmp_path / "outside")
        return True

    passed: list[str] = []
    assert [file.relative for file in walk(root, enter=swap, count_ignored=passed.append)] == ["a.txt"]
    assert passed == ["symlink"]


def test_allowed_link_is_resolved_again_when_opened(tmp_path: Path) -> None:
    """If it leads out of the root when it is opened, it is refused."""
    root = tmp_path / "root"
    fill(tmp_path, "root/..1/a.txt", "root/..2/a.txt", "outside/a.txt")
    (root / "..data").symlink_to("..1")
    (root / "a.txt").symlink_to("..data/a.txt")
    (file,) = walk(root, enter=lambda relative: not relative.startswith("."))
    open_file(file).close()
    for target in ("..2", tmp_path / "outside"):
        (root / "new").symlink_to(target)
        (root / "new").replace(root / "..data")
        if target == "..2":
            open_newest(file).close()
            with pytest.raises(StaleVersionError):
                open_file(file)
        else:
            for opener in (open_file, open_newest):
                with pytest.raises(OSError, match="leads out of the input"):
                    opener(file)


def test_named_input_file_may_not_change_its_target(tmp_path: Path) -> None:
    """It may be a link at the start, but is refused if it leads elsewhere later."""
    fill(tmp_path, "root/b.txt", "outside/a.txt")
    path = tmp_path / "root" / "a.txt"
    path.symlink_to("b.txt")
    file = find_file(path)
    assert file is not None
    open_file(file).close()
    path.unlink()
    path.symlink_to(tmp_path / "outside" / "a.txt")
    with pytest.raises(OSError, match="leads out of the input"):
        open_newest(file)


def test_replaced_file_is_stale(tmp_path: Path) -> None:
    """The new file can still be opened."""
    fill(tmp_path, "a.txt")
    (file,) = walk(tmp_path)
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").replace(tmp_path / "a.txt")
    with pytest.raises(StaleVersionError):
        open_file(file)
    with open_newest(file) as stream:
        assert stream.read() == b"new"


def test_race_for_a_name_never_leads_outside(tmp_path: Path) -> None:
    """Another process keeps swapping a folder for a link, and only files of the input are read."""
    root = tmp_path / "root"
    fill(tmp_path, "root/b/c.txt", "outside/c.txt")
    (tmp_path / "outside" / "c.txt").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    (file,) = walk(root)
    code = (
        "import os\nprint(flush=True)\nwhile True:\n"
        " os.rename('root/b', 'b'); os.rename('link', 'root/b'); os.rename('root/b', 'link'); os.rename('b', 'root/b')"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        contents: set[bytes] = set()
        until, tries = time.monotonic() + 30, 0
        while time.monotonic() < until and (tries < 3000 or not {b"x", b"ELOOP"} <= contents):
            tries += 1
            try:
                with open_newest(file) as stream:
                    contents.add(stream.read())
            except OSError as cause:
                contents.add(errno.errorcode[cause.errno or 0].encode())
        swapper.kill()
    assert contents <= {b"x", b"ELOOP", b"ENOENT", b"ENOTDIR"}
    assert {b"x", b"ELOOP"} <= contents


def test_missing_root_is_try_later(tmp_path: Path) -> None:
    """The run exits with 3."""
    with pytest.raises(TryLaterError, match="was interrupted") as error:
        names(tmp_path / "gone")
    assert error.value.exit_code == 3


def test_forbidden_folder_stops_the_listing(tmp_path: Path) -> None:
    """It is not silently left out."""
    fill(tmp_path, "a.txt", "b/c.txt")
    (tmp_path / "b").chmod(0)
    code = (
        "import os, sys; from pathlib import Path; from pipeline import stores, errors\n"
        "if os.geteuid() == 0: os.setgid(65534), os.setuid(65534)\n"
        "try:\n list(stores.walk(Path('.')))\n"
        "except errors.TryLaterError as error:\n print(error)\n"
    )
    tmp_path.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(Path(stores.__file__).parents[1])}
    child = subprocess.run(
        [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{code}"],
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    (tmp_path / "b").chmod(0o755)
    assert child.stdout == "the listing was interrupted at ./b: Permission denied\n", child.stderr


def test_folder_removed_during_the_listing_is_skipped(tmp_path: Path) -> None:
    """It is no error while the root is the same."""
    fill(tmp_path, "a.txt", "b/c.txt", "z.txt")
    files = walk(tmp_path)
    assert next(files).relative == "a.txt"
    (tmp_path / "b" / "c.txt").unlink()
    (tmp_path / "b").rmdir()
    (tmp_path / "z.txt").unlink()
    assert list(files) == []


def test_vanished_tree_stops_the_listing(tmp_path: Path) -> None:
    """An unmounted disk must not look like a short listing."""
    root = tmp_path / "root"
    fill(root, "a.txt", "b/c.txt")
    files = walk(root)
    assert next(files).relative == "a.txt"
    root.rename(tmp_path / "away")
    root.mkdir()
    with pytest.raises(TryLaterError):
        list(files)


def test_non_utf8_name_is_listed_and_opened(tmp_path: Path) -> None:
    """The path opens the file, and the printed name is valid Unicode."""
    raw = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    (file,) = walk(tmp_path)
    with open_file(file) as stream:
        assert stream.read() == b"x"
    assert printable(file.relative) == "caf\\xe9.txt"


def test_find_returns_only_regular_files(tmp_path: Path) -> None:
    """The path of a folder, or a missing path, gives None."""
    fill(tmp_path, "a.txt")
    stored = find_file(tmp_path / "a.txt")
    assert stored is not None and stored.relative == "a.txt"
    assert find_file(tmp_path) is None
    assert find_file(tmp_path / "b.txt") is None
    assert find_file(tmp_path / "a.txt" / "b") is None


def test_file_is_replaced_atomically(tmp_path: Path) -> None:
    """The new content comes in one piece or in many, and no other file is left."""
    path = tmp_path / "report.json"
    write_atomic(path, b"old")
    write_atomic(path, (part for part in (b"ne", b"w")))
    assert path.read_bytes() == b"new"
    assert listed(tmp_path) == ["report.json"]


def test_written_file_is_readable_by_owner_and_group(tmp_path: Path) -> None:
    """A stricter umask applies."""
    write_atomic(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode) & 0o640


def test_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    """The data raises an error, and no temporary file is left."""

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("no more")

    path = tmp_path / "errors.jsonl"
    write_atomic(path, b"old")
    with pytest.raises(RuntimeError):
        write_atomic(path, broken())
    assert path.read_bytes() == b"old"
    assert listed(tmp_path) == ["errors.jsonl"]


def test_failed_write_names_the_path(tmp_path: Path) -> None:
    """A missing folder, or a folder as the target, is an output error."""
    with pytest.raises(OutputError, match=r"none/a\.json: No such file"):
        write_atomic(tmp_path / "none" / "a.json", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write_atomic(tmp_path / "folder", b"")
    assert listed(tmp_path) == ["folder"]


def test_full_disk_is_an_output_error(tmp_path: Path) -> None:
    """A write beyond the file size limit keeps the old file."""
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from pipeline import stores, errors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n stores.write_atomic(Path(sys.argv[1]), b'x' * 5000)\n"
        "except errors.OutputError as error:\n print('refused', error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(stores.__file__).parents[1])}
    child = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert child.stdout.startswith("refused cannot write"), child.stderr
    assert path.read_bytes() == b"old"
    assert listed(tmp_path) == ["a.json"]
