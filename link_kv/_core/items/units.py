"""Units of measurement, by pint, which comes with the extra ``link_kv[units]``.

Quantities are of pint's application registry, so that they go together with those that a program makes.
"""

from __future__ import annotations

from typing import Any

from link_kv.errors import ConfigError, Refused

_DEGREES_PER_HOUR = 15


def quantity(value: Any, units: str) -> Any:
    """A number or array as a ``pint.Quantity``. Raises `ConfigError` for units that pint does not know."""
    return _registry().Quantity(value, _parse(units))


def convert(value: Any, old: str, new: str) -> Any:
    """A number or array in other units. Raises `ConfigError` where that cannot be."""
    if old == new:
        return value
    return _to(quantity(value, old), new)


def to_units(given: Any, units: str) -> Any:
    """The bare number of a quantity in these units. Raises `Refused` for what is no such quantity."""
    if not hasattr(given, "to") or not hasattr(given, "magnitude"):
        raise Refused(f"{given!r} is not a quantity, such as pint.Quantity(3, {units!r})")
    if given.units == _parse(units):
        return given.magnitude
    try:
        return _to(given, units)
    except ConfigError as error:
        raise Refused(str(error)) from None


def _registry() -> Any:
    try:
        import pint
    except ModuleNotFoundError as error:
        if error.name != "pint":
            raise
        raise ConfigError("units are converted by pint: pip install 'link_kv[units]'") from None
    return pint.get_application_registry()  # type: ignore[no-untyped-call]


def _parse(units: str) -> Any:
    registry = _registry()
    try:
        return registry.parse_units(units)
    except Exception as error:  # noqa: BLE001 - pint raises its own, and whatever Python's tokenizer does
        raise ConfigError(f"units={units!r}: pint does not know them: {error}") from None


def _to(given: Any, new: str) -> Any:
    import pint

    target = _parse(new)
    try:
        return given.to(target).magnitude
    except pint.DimensionalityError as error:
        # Hours of angle, as of a right ascension: to pint an hour is a time.
        if given.check("[time]") and _is_angle(target):
            degrees = given.to("hour").magnitude * _DEGREES_PER_HOUR
            return quantity(degrees, "degree").to(target).magnitude
        if _is_angle(given.units) and (1 * target).check("[time]"):
            hours = given.to("degree").magnitude / _DEGREES_PER_HOUR
            return quantity(hours, "hour").to(target).magnitude
        raise ConfigError(f"{given.units} cannot be converted to {new}: {error}") from None


def _is_angle(units: Any) -> bool:
    return bool(_registry().get_base_units(units)[1] == _registry().radian)
