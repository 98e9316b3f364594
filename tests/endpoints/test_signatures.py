"""The names and parameters that dripline's key-value store has."""

from __future__ import annotations

import inspect

import pytest

from link_kv import endpoints
from link_kv.endpoints import KVStore, KVStoreKey

STORE = {
    "add_endpoint": "endpoint",
    "cmd": "target, method_name, value, payload, lockout_key, timeout, ignore_retcode",
    "endpoint": "endpoint",
    "endpoint_names": None,
    "endpoints": None,
    "get": "target, timeout, ignore_retcode",
    "handle_request": "channel, method, properties, request",
    "is_locked": None,
    "list_endpoints": "",
    "lock": "*args, **kwargs",
    "lockout_key": None,
    "logging_status": None,
    "on_cmd": "*args, **kwargs",
    "on_config": "attribute, value",
    "on_send": "*commands",
    "on_set": "*args, **kwargs",
    "ping": "*args, **kwargs",
    "schedule_status": None,
    "send": "to_send",
    "set": "target, value, lockout_key, timeout, ignore_retcode",
    "set_condition": "*args, **kwargs",
    "unlock": "*args, **kwargs",
}
KEY = {
    "handle_request": "channel, method, properties, request",
    "is_locked": None,
    "lock": "lockout_key, *args, **kwargs",
    "lockout_key": None,
    "log_interval": None,
    "log_on_set": None,
    "logging_status": None,
    "max_fractional_change": None,
    "max_interval": None,
    "on_cmd": "*args, **kwargs",
    "on_config": "attribute, value",
    "on_get": "*args, **kwargs",
    "on_set": "value",
    "ping": "*args, **kwargs",
    "schedule_interval": None,
    "schedule_status": None,
    "scheduled_action": "",
    "set_condition": "*args, **kwargs",
    "single_schedule": "delay",
    "store_value": "severity",
    "unlock": "*args, **kwargs",
}
DEFAULTS = {"lockout_key": False, "timeout": None, "ignore_retcode": False, "payload": None}


@pytest.mark.parametrize(
    ("kind", "name", "parameters"),
    [
        *((KVStore, name, parameters) for name, parameters in STORE.items()),
        *((KVStoreKey, name, parameters) for name, parameters in KEY.items()),
    ],
)
def test_it_is_called_as_in_dripline(kind: type, name: str, parameters: str | None) -> None:
    found = inspect.getattr_static(kind, name)
    if parameters is None:
        assert isinstance(found, property)
        return
    signature = inspect.signature(found)
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    named = [stars.get(each.kind, "") + each.name for each in signature.parameters.values()]
    assert ", ".join(named[1:]) == parameters
    for each in signature.parameters.values():
        if each.name in DEFAULTS and kind is KVStore:
            assert each.default is DEFAULTS[each.name]
        assert not isinstance(each.default, (list, dict, set))  # one that all calls would share


def test_constructors() -> None:
    assert str(inspect.signature(KVStore)) == "(**kwargs: 'Any') -> 'None'"
    assert list(inspect.signature(KVStoreKey).parameters) == ["initial_value", "kwargs"]
    assert inspect.signature(KVStoreKey).parameters["initial_value"].default is None
    assert (endpoints.kv_store, endpoints.kv_store_key) == (KVStore, KVStoreKey)
    for function in (endpoints.times2, endpoints.times3):
        assert list(inspect.signature(function).parameters) == ["value"]
