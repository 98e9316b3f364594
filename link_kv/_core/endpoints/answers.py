"""What links may call of a provider."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from link_kv._core.endpoints import names as endpoint_names
from link_kv._core.endpoints.replies import Properties

if TYPE_CHECKING:
    from link_kv.endpoints import KVStore


def _handle_request(
    store: KVStore, caller: Any, method: str, target: str, request: Any, properties: Any = None
) -> dict[str, Any]:
    about = properties if isinstance(properties, Mapping) else {}
    key = about.get("lockout_key")
    who = Properties(str(about.get("message_id", "")), key if isinstance(key, str) else None)
    return store._kv_target(target).handle_request(caller, method, who, request)._asdict()


def _answer(
    store: KVStore,
    caller: Any,
    operation: str,
    target: str,
    request: Mapping[str, Any],
    key: Any,
    ignore: bool,
) -> Any:
    found = endpoint_names.resolve(target, store._kv_served())
    if found.specifier:
        request = {**request, "specifier": found.specifier}
    who = Properties(lockout_key=key if isinstance(key, str) else None)
    return store._kv_target(found.endpoint).handle_request(caller, operation, who, request).result(ignore)


def _get(store: KVStore, caller: Any, target: str, *, ignore_retcode: bool = False) -> Any:
    return _answer(store, caller, "get", target, {}, None, ignore_retcode)


def _set(
    store: KVStore,
    caller: Any,
    target: str,
    value: Any,
    lockout_key: Any = False,
    *,
    ignore_retcode: bool = False,
) -> Any:
    return _answer(store, caller, "set", target, {"values": [value]}, lockout_key, ignore_retcode)


def _cmd(
    store: KVStore,
    caller: Any,
    target: str,
    method_name: str,
    value: Any = (),
    payload: Any = None,
    lockout_key: Any = False,
    *,
    ignore_retcode: bool = False,
) -> Any:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    request = {**(payload or {}), "values": [method_name, *values]}
    return _answer(store, caller, "cmd", target, request, lockout_key, ignore_retcode)


def _config(
    store: KVStore,
    caller: Any,
    target: str,
    attribute: str,
    value: Any = None,
    lockout_key: Any = False,
    *,
    ignore_retcode: bool = False,
) -> Any:
    request = {"values": [attribute] if value is None else [attribute, value]}
    return _answer(store, caller, "config", target, request, lockout_key, ignore_retcode)


def _list_endpoints(store: KVStore, caller: Any) -> list[str]:
    return store.list_endpoints()


ANSWERS: dict[str, Callable[..., Any]] = {
    "handle_request": _handle_request,
    "get": _get,
    "set": _set,
    "cmd": _cmd,
    "config": _config,
    "list_endpoints": _list_endpoints,
}


def signatures() -> dict[str, str]:
    """The signatures as callers see them."""
    described = {}
    for name, answer in ANSWERS.items():
        signature = inspect.signature(answer)
        parameters = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
        described[name] = str(inspect.Signature(parameters[2:]))
    return described
