"""The file of a backup: gzip over lines of JSON.

The first line is an object that says what the file is. Each key is an array: the key below the prefix, its
value, and the id of its lease where it has one. What is not UTF-8 is an object, ``{"base64": "…"}``. The last
line is an object with the number of keys and the SHA-256 of all lines before it.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from link_kv._core.operations.raw_copy import Raw
from link_kv.errors import LinkKVError

_FORMAT = "link_kv backup"
_VERSION = 1


class ArchiveError(LinkKVError, ValueError):
    """A file that is no backup, or a damaged one."""


def write(path: Path, about: dict[str, Any], pages: Iterable[list[Raw]]) -> None:
    """Make the file, whole or not at all: what was there before stays until the new one is complete.

    Only its owner may read it. ``about`` goes to the first line.
    """
    path = Path(os.path.realpath(path))
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            _write(file, about, pages)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # or a crash could undo the replacement
    finally:
        os.close(directory)


def _write(file: IO[bytes], about: dict[str, Any], pages: Iterable[list[Raw]]) -> None:
    digest, count = hashlib.sha256(), 0
    with gzip.GzipFile(fileobj=file, mode="wb", filename="", compresslevel=6) as out:

        def put(lines: bytes) -> None:
            digest.update(lines)
            out.write(lines)

        put(_line({"format": _FORMAT, "version": _VERSION, **about}))
        for page in pages:
            put(b"".join(map(_packed, page)))
            count += len(page)
        put(_line({"keys": count, "sha256": digest.hexdigest()}))


def _line(item: object) -> bytes:
    return orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)


def _packed(raw: Raw) -> bytes:
    item: list[Any] = [_text(raw.key), _text(raw.value)]
    if raw.lease:
        item.append(raw.lease)
    return _line(item)


def _text(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def about(path: Path) -> dict[str, Any]:
    """What the first line says. Raises `ArchiveError` when this is no backup that can be read."""
    with _lines(path) as lines:
        return _header(path, next(lines, b""))


def raws(path: Path) -> Iterator[Raw]:
    """The keys. Raises `ArchiveError`, perhaps only at the end, when the file is not as it was written."""
    digest, count = hashlib.sha256(), 0
    with _lines(path) as lines:
        first = next(lines, b"")
        _header(path, first)
        digest.update(first)
        for line in lines:
            item = _loads(path, line)
            if isinstance(item, dict):
                if item != {"keys": count, "sha256": digest.hexdigest()} or next(lines, None) is not None:
                    raise ArchiveError(f"{path}: is damaged: its checksum does not fit")
                return
            digest.update(line)
            count += 1
            yield _unpacked(path, item)
    raise ArchiveError(f"{path}: is not whole: its end is missing")


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[Iterator[bytes]]:
    try:
        with gzip.open(path, "rb") as lines:
            yield lines
    except EOFError:
        raise ArchiveError(f"{path}: is not whole: its end is missing") from None
    except gzip.BadGzipFile as error:
        raise ArchiveError(f"{path}: is no backup, or a damaged one: {error}") from None
    except zlib.error as error:
        raise ArchiveError(f"{path}: is damaged: {error}") from None


def _header(path: Path, line: bytes) -> dict[str, Any]:
    header = _loads(path, line)
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ArchiveError(f"{path}: is no backup of link_kv")
    if header.get("version") != _VERSION:
        raise ArchiveError(
            f"{path}: has version {header.get('version')}, and this link_kv reads {_VERSION}: upgrade link_kv"
        )
    return header


def _loads(path: Path, line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except ValueError:
        raise ArchiveError(f"{path}: is no backup of link_kv, or a damaged one") from None


def _unpacked(path: Path, item: Any) -> Raw:
    try:
        key, value, *lease = item
        return Raw(_data(key), _data(value), *lease)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise ArchiveError(f"{path}: is damaged: {item!r} is no key") from None


def _data(text: Any) -> bytes:
    if isinstance(text, dict):
        return base64.b64decode(text["base64"], validate=True)
    return bytes(text.encode())
