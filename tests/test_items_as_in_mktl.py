"""What mKTL's own tests ask of items, asked of ours: its ten items, and its cases one by one.

Where mKTL's clients raise KeyError or RuntimeError for a value that does not fit, ours raise `Refused`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from link_kv import EtcdMiddleware, Item, NotFound, Refused, Store, get

from .processes import until

SEXAGESIMAL = "%2d:%2.2d:%04.1f"
ITEMS: dict[str, dict[str, Any]] = {
    "angle": {
        "type": "numeric",
        "description": "An angle.",
        "format": SEXAGESIMAL,
        "units": {"": "radians", "formatted": "degrees"},
        "initial": 0.018049613347708025,
    },
    "boolean": {"type": "boolean"},
    "enumerated": {"type": "enumerated", "enumerators": {0: "Zero", 1: "One", 4: "Four"}},
    "hourangle": {
        "type": "numeric",
        "format": SEXAGESIMAL,
        "units": {"": "radians", "formatted": "hours"},
        "initial": 0.2707442002156204,
    },
    "mask": {"type": "mask", "enumerators": {"None": "none set", 0: "A", 1: "B", 2: "C"}},
    "noyes": {"type": "boolean", "enumerators": {0: "No", 1: "Yes"}},
    "number": {"type": "numeric", "units": "meaningless units"},
    "readonly": {"type": "numeric", "units": "meaningless units", "initial": 13, "settable": False},
    "string": {"type": "string"},
    "typeless": {},
}


@pytest.fixture
def store(etcd_client: EtcdMiddleware) -> Store:
    etcd_client["/unittest"] = {}
    store = get("unittest", client=etcd_client)
    for key, description in ITEMS.items():
        store.describe(key, **description)
    return store


def test_get(store: Store) -> None:
    assert store["number"].get() is None
    assert store["readonly"].get() == 13


def test_set(store: Store) -> None:
    number, string = store["number"], store["string"]
    number.set(-1)
    number.set(23)
    number.set(44)
    assert number.get() == 44
    assert number.value == 44
    assert number == 44
    string.set("testing")
    assert string.get() == "testing"
    assert string.value == "testing"
    assert string == "testing"
    string.set("")
    assert string == ""
    with pytest.raises(Refused, match=r"unittest\.readonly: is read-only"):
        store["readonly"].set(44)
    assert store["readonly"] == 13


@pytest.mark.parametrize(("given", "stored"), [(False, False), (True, True), (0, False), (1, True)])
def test_a_boolean_by_value(store: Store, given: object, stored: bool) -> None:
    boolean = store["boolean"]
    boolean.value = given
    assert boolean.value is stored
    assert boolean == int(stored)


@pytest.mark.parametrize(
    ("key", "text", "stored"),
    [
        ("boolean", "fALSE", False),
        ("boolean", "False", False),
        ("boolean", "tRUE", True),
        ("boolean", "True", True),
        ("noyes", "nO", False),
        ("noyes", "No", False),
        ("noyes", "yES", True),
        ("noyes", "Yes", True),
    ],
)
def test_a_boolean_by_name(store: Store, key: str, text: str, stored: bool) -> None:
    item = store[key]
    item.formatted = text
    assert item.value is stored


@pytest.mark.parametrize(
    ("key", "text"), [("boolean", "No"), ("boolean", "Yes"), ("noyes", "False"), ("noyes", "True")]
)
def test_a_boolean_has_its_own_names_only(store: Store, key: str, text: str) -> None:
    with pytest.raises(Refused, match=f"unittest.{key}: '{text}' is none of"):
        store[key].formatted = text
    assert store[key].state == "unset"


def test_enumerated(store: Store) -> None:
    enumerated = store["enumerated"]
    enumerated.value = 0
    assert enumerated == 0
    assert enumerated.formatted == "Zero"
    enumerated.value = 1
    assert enumerated == 1
    assert enumerated.formatted == "One"
    enumerated.formatted = "zERO"
    assert enumerated == 0
    enumerated.formatted = "oNE"
    assert enumerated == 1
    for wrong in (234, "invalid"):
        with pytest.raises(Refused):
            enumerated.value = wrong
    with pytest.raises(Refused):
        enumerated.formatted = "invalid"
    assert enumerated == 1


def test_logic(store: Store) -> None:
    string, number = store["string"], store["number"]
    string.set("testing")
    assert bool(string) is True
    string.set("")
    assert bool(string) is False
    number.value = 0
    assert bool(number) is False
    assert number | 0 == 0
    assert number | 1 == 1
    assert number & 0 == 0
    assert number & 1 == 0
    number.value = 2
    assert bool(number) is True
    assert number | 0 == 2
    assert number | 1 == 3
    assert number & 0 == 0
    assert number & 1 == 0
    assert number & 2 == 2
    assert number ^ 2 == 0
    assert number ^ 1 == 3
    assert 0 | number == 2
    assert 1 | number == 3
    assert 0 & number == 0
    assert 1 & number == 0
    assert 2 & number == 2
    assert 2 ^ number == 0
    assert 1 ^ number == 3


def test_mask(store: Store) -> None:
    mask = store["mask"]
    for value, text in ((0, "none set"), (1, "A"), (3, "A, B")):
        mask.value = value
        assert mask == value
        assert mask.formatted == text
    for text, value in (("B", 2), ("c", 4), ("B, C", 6), ("None", 0)):
        mask.formatted = text
        assert mask == value
    for wrong in (234, "invalid"):
        with pytest.raises(Refused):
            mask.value = wrong
    with pytest.raises(Refused):
        mask.formatted = "invalid"


def test_inversion_is_for_integers(store: Store) -> None:
    number = store["number"]
    number.value = 25
    assert ~number == ~25
    number.value = 25.1
    with pytest.raises(TypeError):
        _ = ~number


@pytest.mark.parametrize("value", [50, 50.1])
def test_math(store: Store, value: float) -> None:
    number = store["number"]
    number.value = value
    assert number == value
    assert number <= value
    assert number <= value + 1
    assert number < value + 1
    assert number >= value
    assert number >= value - 1
    assert number > value - 1
    assert number != value - 1
    assert +number == value
    assert -number == -value
    assert number + 1 == value + 1
    assert number - 1 == value - 1
    assert number * 2 == value * 2
    assert number / 2 == value / 2
    assert number // 2 == value // 2
    assert number**2 == value**2
    assert number % 25 == value % 25
    assert number % 48 == value % 48
    assert divmod(number, 7) == divmod(value, 7)
    assert 1 + number == 1 + value
    assert 1 - number == 1 - value
    assert 2 * number == 2 * value
    assert 2 / number == 2 / value
    assert 2**number == 2**value
    assert 100 % number == 100 % value
    assert divmod(1000, number) == divmod(1000, value)
    number += 1
    assert number == value + 1
    number -= 1
    assert number == value
    number /= 2
    assert number == value / 2
    number *= 2
    assert number == value
    assert isinstance(number, Item)


def test_quantity(store: Store) -> None:
    angle = store["angle"]
    angle.value = 0.5
    assert angle.quantity.to("degrees").magnitude == pytest.approx(28.6478897565)
    microradians = angle.quantity.to("microradians")
    assert microradians.magnitude == pytest.approx(500_000)
    angle.quantity = microradians * 10
    assert angle.value == pytest.approx(5)


@pytest.mark.parametrize(("key", "end"), [("angle", 7.21984533908321), ("hourangle", 108.29768008624816)])
def test_sexagesimal(store: Store, key: str, end: float) -> None:
    item = store[key]
    item.formatted = "1:2:3"
    assert item.formatted == " 1:02:03.0"
    for factor, text in ((2, " 2:04:06.0"), (2, " 4:08:12.0"), (10, "41:22:00.0"), (10, "413:40:00.0")):
        item *= factor
        assert item.formatted == text
    assert item.value == pytest.approx(end, rel=1e-15)
    for given, text in (
        ("-1:2:3", "-1:02:03.0"),
        ("1:-2:3", " 0:58:03.0"),
        ("1:-2:-3", " 0:57:57.0"),
        ("1:2:-3", " 1:01:57.0"),
    ):
        item.formatted = given
        assert item.formatted == text


def test_string(store: Store) -> None:
    string = store["string"]
    string.value = "test"
    for wrong in (
        lambda: ~string,
        lambda: string - "t",
        lambda: string - 1,
        lambda: +string,
        lambda: -string,
        lambda: string / "t",
        lambda: string / 2,
        lambda: string**2,
        lambda: string % 2,
    ):
        with pytest.raises(TypeError):
            wrong()
    assert string == "test"
    assert string <= "test"
    assert string < "testz"
    assert string >= "atest"
    assert string > "atest"
    assert string != "atest"
    assert string + "z" == "testz"
    assert string * 2 == "testtest"
    assert "z" + string == "ztest"
    assert 2 * string == "testtest"
    assert string[1] == "e"
    string += "z"
    assert string == "testz"
    string.value = "test"
    string *= 2
    assert string == "testtest"


@pytest.mark.parametrize("value", [24, True, "test", {"1": "one", "two": 2}, [1, 2, 3], None])
def test_typeless(store: Store, value: Any) -> None:
    typeless = store["typeless"]
    typeless.value = value
    assert typeless.value == value
    assert isinstance(typeless.formatted, str)


def test_nested_values_survive(store: Store) -> None:
    value = {"list": [1, 2, "a", None, 1.5], "dict": {"one": 1}, "none": None, "true": True, "false": False}
    store["typeless"].set(value)
    assert store["typeless"].value == value


def test_callback(store: Store) -> None:
    string = store["string"]
    heard: list[tuple[Item, str, float]] = []
    string.register(lambda item, value, timestamp: heard.append((item, value, timestamp)))
    before = time.time()
    string.value = "callback testing"
    until(lambda: heard)
    [(item, value, timestamp)] = heard
    assert item is string
    assert value == "callback testing"
    assert before <= timestamp <= time.time()


def test_store(store: Store) -> None:
    assert store.name == "unittest"
    for key in ("angle", "Angle", "ANGLE", "number", "string"):
        assert store.has_key(key)
        assert key in store
    assert "bad_key_name" not in store
    for assign in ("angle", "bad_key_name"):
        with pytest.raises(TypeError):
            store[assign] = 55  # type: ignore[assignment]
        with pytest.raises(TypeError):
            del store[assign]  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        store["bad_key_name"]
    for name in ("clear", "copy", "update"):
        assert not hasattr(store, name)
    number = store["number"]
    assert store["NUMBER"] is number
    assert store["STRING"] is store["string"]
    assert number in store
    assert store[number] is number
    assert list(store) == sorted(ITEMS)
    assert all(isinstance(item, Item) for item in store.values())
    assert len(store) == len(store.keys()) == len(ITEMS)
    assert set(store.keys()) == set(store.catalog)
    assert str(store) == repr(store) == "<Store unittest, 10 items, live>"


def test_entry_point(store: Store, etcd_client: EtcdMiddleware) -> None:
    item = store["number"]
    for spelled in ("unittest.number", "UNITTEST.Number"):
        assert get(spelled, client=etcd_client) is item
    assert get("UnitTest", "NUMBER", client=etcd_client) is item
    assert get("Unittest", client=etcd_client) is store
    with pytest.raises(ValueError, match="name"):
        get(None, client=etcd_client)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        get("unittest.nothing", client=etcd_client)


@pytest.mark.parametrize("dtype", ["<f8", ">i4", "bool", "c16", "uint8"])
def test_an_array_keeps_dtype_and_shape(store: Store, dtype: str) -> None:
    image = store.describe("image", type="bulk")
    array = np.arange(12).reshape(3, 4).astype(dtype)
    image.set(array)
    assert image.value.dtype == array.dtype
    assert np.array_equal(image.value, array)
    assert np.array_equal(image + 1, array + 1)
    assert np.array_equal(array * image, array * array)
    assert image[1].tolist() == array[1].tolist()
