"""What stands for its value in expressions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link_kv._core.items.operators import Operators

BINARY: list[Callable[[Any, Any], Any]] = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, divmod,
    operator.pow, operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift,
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
]  # fmt: skip
UNARY: list[Callable[[Any], Any]] = [operator.neg, operator.pos, operator.invert, abs, round, int, float]
IN_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod,
    operator.ipow: operator.pow,
    operator.iand: operator.and_,
    operator.ior: operator.or_,
    operator.ixor: operator.xor,
    operator.ilshift: operator.lshift,
    operator.irshift: operator.rshift,
}


class Box(Operators):
    def __init__(self, value: Any) -> None:
        self.value = value

    def _change(self, change: Callable[[Any], Any]) -> None:
        self.value = change(self.value)


VALUES = st.integers(-50, 50) | st.floats(-50, 50) | st.booleans() | st.text(max_size=3) | st.just([1, 2])


def outcome(act: Callable[[], Any]) -> Any:
    try:
        found = act()
    except (ArithmeticError, TypeError, ValueError) as error:
        return type(error)
    return shown(found)


def shown(value: Any) -> Any:
    """A value with its type; of a float its repr, since NaN equals nothing."""
    return type(value), repr(value) if isinstance(value, float) else value


@given(st.sampled_from(BINARY), VALUES, VALUES)
def test_it_gives_what_its_value_gives(act: Callable[[Any, Any], Any], one: Any, other: Any) -> None:
    plain = outcome(lambda: act(one, other))
    assert outcome(lambda: act(Box(one), other)) == plain
    assert outcome(lambda: act(Box(one), Box(other))) == plain
    if not (act is operator.mod and isinstance(one, str)):  # a str formats whatever stands on its right
        assert outcome(lambda: act(one, Box(other))) == plain


@pytest.mark.filterwarnings("ignore:Bitwise inversion:DeprecationWarning")  # of a bool, from 3.12 on
@given(st.sampled_from(UNARY), VALUES)
def test_so_do_operators_of_one(act: Callable[[Any], Any], value: Any) -> None:
    assert outcome(lambda: act(Box(value))) == outcome(lambda: act(value))


@given(st.sampled_from(list(IN_PLACE)), VALUES, VALUES)
def test_in_place_it_stays_itself_and_has_another_value(
    act: Callable[[Any, Any], Any], one: Any, other: Any
) -> None:
    plain = outcome(lambda: IN_PLACE[act](one, other))
    for right in (other, Box(other)):
        box = Box(one)
        if isinstance(plain, type):
            with pytest.raises(plain):
                act(box, right)
        else:
            assert act(box, right) is box
            assert shown(box.value) == plain


@pytest.mark.parametrize(
    "value", [None, False, 0, 0.0, "", "false", "F", "No", "n", "OFF", "Disable", [], {}]
)
def test_false(value: Any) -> None:
    assert not Box(value)


@pytest.mark.parametrize("value", [True, 1, -1, "x", "true", "none", "0", " ", [0], {"a": 0}, float("nan")])
def test_true(value: Any) -> None:
    assert Box(value)


def test_it_is_indexed_looped_over_and_searched_like_its_value() -> None:
    box = Box(["a", "b"])
    assert box[1] == "b"
    assert box[:1] == ["a"]
    assert len(box) == 2
    assert list(box) == ["a", "b"]
    assert "b" in box
    assert [10, 11, 12][Box(1)] == 11
    with pytest.raises(TypeError):
        [10, 11][Box(1.0)]
    assert Box({"k": 1})["k"] == 1


def test_it_hashes_by_identity() -> None:
    one, other = Box(1), Box(1)
    assert one == other
    assert len({one, other}) == 2
    assert one is not None
    assert (Box(None) == None) is True  # noqa: E711


def test_arrays_leave_it_to_the_item() -> None:
    array = np.array([1, 2, 3])
    assert (array * Box(2)).tolist() == [2, 4, 6]
    assert (Box(array) + array).tolist() == [2, 4, 6]
    assert (np.float64(2) * Box(3)) == 6
    box = Box(array)
    box += 1
    assert box.value.tolist() == [2, 3, 4]
    assert array.tolist() == [1, 2, 3]
