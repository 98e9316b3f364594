"""The configurations in examples/, as they stand there."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from link_kv import AccessDenied, EtcdMiddleware, Refused, get
from link_kv.endpoints import load, return_codes

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(autouse=True)
def paths() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


def test_prices(etcd_client: EtcdMiddleware) -> None:
    [kv] = load(EXAMPLES / "kv_store.yaml", "somenode")
    kv.start_in_thread()
    try:
        assert kv.get("somenode.kv_example.foo") == {"value_raw": 0.75}
        assert kv.set("baz", 5.0) == {"value_raw": 5.0, "value_cal": 5.5}
        assert etcd_client["/kv_example/baz"] == 5.0
    finally:
        kv.stop()


def test_an_instrument_in_twenty_lines(etcd_client: EtcdMiddleware) -> None:
    [lab] = load(EXAMPLES / "instrument.yaml")
    lab.start_in_thread()
    try:
        bath = get("lab.bath", client=etcd_client)
        assert bath.wait(20.0, 30)
        bath.set(37)
        assert bath.value == 37.0
        assert lab.cmd("bath", "zero", 0.5) == {}
        assert bath.get(refresh=True) == 36.5
        assert bath.description.units == "degC"
        with pytest.raises(Refused, match=r"70 is not between 0 and 60\.0"):
            bath.set(70)
    finally:
        lab.stop()
    lines = (EXAMPLES / "instrument.py").read_text().partition("class ")[2].splitlines()
    assert len([line for line in lines if line.strip()]) <= 20


def test_the_exceptions_of_return_codes_have_names() -> None:
    from link_kv import endpoints

    denied = endpoints.ServiceErrorAccessDenied
    assert denied is return_codes["service_error_access_denied"].exception
    assert issubclass(denied, AccessDenied)
    assert type(pickle.loads(pickle.dumps(denied("no")))) is denied
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchError'"):
        _ = endpoints.NoSuchError
