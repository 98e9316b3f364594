"""What differs between two values, key by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from link_kv.codec import decode
from link_kv.tree import EMPTY_DICT, LIST, MISSING, Place, flatten

from ._show import AT_A_TIME, console, json_list, lines, plain, preview, terminal


class Difference(NamedTuple):
    path: str
    """Of a list or an empty dict with a slash at its end, as its marker in etcd."""
    old: bytes | None
    new: bytes | None


def flat(value: Any, path: str = "") -> dict[str, bytes]:
    """The keys of a value, as paths, and what etcd would hold there. Raises `EncodeError`."""
    if value is MISSING:
        return {}
    at = Place(path, path.encode(), b"", ())
    return {key.decode() or "/": stored for key, stored in flatten(value, at).pairs}


def differences(old: dict[str, bytes], new: dict[str, bytes]) -> list[Difference]:
    """What must change for the one to become the other, in the order of the paths."""
    found = (Difference(path, old.get(path), new.get(path)) for path in sorted(old.keys() | new.keys()))
    return [each for each in found if each.old != each.new]


def show(found: list[Difference], as_json: bool = False) -> None:
    if as_json:
        json_list(map(_as_json, found))
    elif terminal():
        _paint(found)
    else:
        lines(f"{sign}\t{plain(path)}\t{plain(stored)}" for sign, path, stored in _sides(found))


def _sides(found: Iterable[Difference]) -> Iterator[tuple[str, str, bytes]]:
    for path, old, new in found:
        if old is not None:
            yield "-", path, old
        if new is not None:
            yield "+", path, new


def _paint(found: list[Difference]) -> None:
    from rich.text import Text

    out = console()
    for sign, path, stored in _sides(found[:AT_A_TIME]):
        text, _ = preview(stored)
        out.print(
            Text(f"{sign} {plain(path)} = {text}", "red" if sign == "-" else "green"),
            no_wrap=True,
            overflow="ellipsis",
        )
    if len(found) > AT_A_TIME:
        out.print(f"… and {len(found) - AT_A_TIME:,} more", style="dim")


def _as_json(difference: Difference) -> dict[str, Any]:
    path, old, new = difference
    item: dict[str, Any] = {"path": path}
    if old is not None:
        item["old"] = _value(path, old)
    if new is not None:
        item["new"] = _value(path, new)
    return item


def _value(path: str, stored: bytes) -> Any:
    if path.endswith("/") and stored in (EMPTY_DICT, LIST) and path != "/":
        return [] if stored == LIST else {}
    return decode(stored)
