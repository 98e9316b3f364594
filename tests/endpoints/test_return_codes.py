"""Return codes, and the exceptions that they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from link_kv import (
    AccessDenied,
    ConfigError,
    Conflict,
    DeadlineExceeded,
    LinkKVError,
    NotFound,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from link_kv._core.endpoints.return_codes import ReplyError, code_of, error, return_codes


@pytest.fixture
def own() -> Iterator[type[ReplyError]]:
    yield return_codes.add(1234, "pump_error_dry", "the pump runs dry", base=OSError)
    for known in (return_codes._by_code, return_codes._by_name):
        for key in [key for key, each in known.items() if each.code == 1234]:  # type: ignore[attr-defined]
            del known[key]  # type: ignore[attr-defined]


def test_all_that_dripline_has() -> None:
    codes = sorted(each.code for each in return_codes.values())
    wanted = [0, 1, *range(100, 103), *range(200, 203), *range(300, 310), *range(400, 405), 999]
    assert codes == wanted
    assert all(name == each.name and each.description for name, each in return_codes.items())


def test_each_raises_its_own() -> None:
    kinds = [each.exception for each in return_codes.values() if each.code]
    assert len(set(kinds)) == len(kinds)
    for each in return_codes.values():
        if each.exception is not None:
            raised = each.exception("why", {"value_raw": 1})
            assert isinstance(raised, LinkKVError)
            assert (raised.code, raised.name, str(raised)) == (each.code, each.name, "why")
            assert raised.payload == {"value_raw": 1}
    assert isinstance(error("service_error_access_denied"), AccessDenied)
    assert isinstance(error("service_error_invalid_value"), Refused)
    assert isinstance(error("client_error_timeout"), TimeoutError)
    assert return_codes.of(777).code == 777
    assert return_codes.of(777).exception is return_codes["unhandled_exception"].exception


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ValueError("x"), 304),
        (Refused("x"), 304),
        (AccessDenied("x"), 307),
        (PermissionError("x"), 307),
        (TimeoutError("x"), 305),
        (DeadlineExceeded("x"), 305),
        (NotImplementedError("x"), 306),
        (ConnectionResetError("x"), 201),
        (OSError("x"), 200),
        (TypeError("x"), 303),
        (NotFound("x"), 102),
        (OutcomeUnknown("x"), 100),
        (Unavailable("x"), 101),
        (Conflict("x"), 300),
        (ZeroDivisionError("x"), 999),
        (error("device_error_no_resp", "x"), 202),
    ],
)
def test_what_methods_raise_has_a_code(raised: BaseException, code: int) -> None:
    assert code_of(raised).code == code


@pytest.mark.parametrize("name", ["amqp_error", "service_error_timeout", "client_error_timeout"])
def test_what_leaves_the_outcome_open_says_so(name: str) -> None:
    assert isinstance(error(name), OutcomeUnknown)
    assert isinstance(error(name), DeadlineExceeded) is name.endswith("timeout")


@pytest.mark.parametrize("name", ["amqp_error_broker_connection", "client_error_unable_to_send"])
def test_what_does_not_leave_it_open_says_that(name: str) -> None:
    assert isinstance(error(name), Unavailable)
    assert not isinstance(error(name), OutcomeUnknown)


def test_your_own(own: type[ReplyError]) -> None:
    assert return_codes["pump_error_dry"].code == own.code == 1234
    assert issubclass(own, OSError)
    assert code_of(own("dry")).name == "pump_error_dry"
    assert str(error("pump_error_dry", "dry")) == "dry"


@pytest.mark.parametrize(
    ("code", "name"),
    [(999, "mine"), (5, "mine"), (True, "mine"), (2000, "not a word"), (2000, "success")],
)
def test_what_is_no_code_of_your_own(code: int, name: str) -> None:
    with pytest.raises(ConfigError):
        return_codes.add(code, name, "")
