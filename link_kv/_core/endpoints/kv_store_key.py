"""`KVStoreKey`: one value with a policy. Public in `link_kv.endpoints`."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from link_kv._core.endpoints.addressable import LOCKOUT_TTL, Addressable, log, number
from link_kv._core.endpoints.calibration import Calibration, lookup, table
from link_kv._core.endpoints.config import ANY, FLAG, LIST, NUMBER, SECONDS, TABLE, TEXT, Kind
from link_kv._core.endpoints.due import Due, same
from link_kv._core.endpoints.handed import Handed
from link_kv._core.endpoints.lockout import Lockout
from link_kv._core.endpoints.replies import Reply, replied
from link_kv._core.endpoints.return_codes import error
from link_kv._core.endpoints.schedule import LONGEST, Scheduler, Ticket
from link_kv._core.items.descriptions import Description
from link_kv.errors import Closed, ConfigError, NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from link_kv.endpoints import KVStore
    from link_kv.item import Item

DESCRIPTION: dict[str, Kind] = {
    "type": TEXT,
    "description": TEXT,
    "units": ANY,
    "format": TEXT,
    "enumerators": ANY,
    "range": LIST,
    "precision": NUMBER,
    "deadband": NUMBER,
}
"""Keywords that describe the item."""

KEYWORDS: dict[str, Kind] = {
    "initial_value": ANY,
    "calibration": ANY,
    "get_on_set": FLAG,
    "log_on_set": FLAG,
    "schedule_interval": SECONDS,
    "log_interval": SECONDS,
    "max_interval": SECONDS,
    "max_fractional_change": NUMBER,
    "max_absolute_change": NUMBER,
    "check_field": TEXT,
    "alert_routing_key": TEXT,
    "set_value_map": TABLE,
    "set_value_lowercase": FLAG,
    "extract_raw_regex": TEXT,
    "lockout_ttl": SECONDS,
    **DESCRIPTION,
}
"""All keywords but the name."""

_SHORTEST = 0.001
"""Seconds between two looks."""

_WORDS = {"start": True, "on": True, "stop": False, "off": False}


class KVStoreKey(Addressable):
    """An endpoint: a key of a `KVStore`, whose value is an item of the store.

    Args:
        initial_value: written when there is no value yet; a restart never overwrites one.

    Keyword Args:
        name: what it is found by; no other endpoint may have it.
        calibration: an expression such as ``'2*{}'``, or a dict by raw values; gives ``value_cal``.
        get_on_set: answer a set with what `on_get` gives then.
        log_on_set: send an alert with each set.
        schedule_interval, log_interval: two names for the seconds between two looks; above 0 they begin by
            themselves.
        max_interval, max_fractional_change, max_absolute_change: an alert is due when more than so many
            seconds have passed, or the value moved by more than this; without any, at each look.
        check_field: which value that is about, ``value_cal`` or ``value_raw``.
        alert_routing_key: alerts are sent under ``<this>.<name>``; ``sensor_value`` by default.
        set_value_map, set_value_lowercase: a dict of what is set by what is given; and whether texts that are
            given are taken in lower case.
        extract_raw_regex: takes the group ``value_raw`` out of texts that `on_get` returns.
        lockout_ttl: seconds that a lockout lasts unless its key is shown; an hour by default.
        type, description, units, format, enumerators, range, precision, deadband: as of items.

    For an endpoint of your own, override `on_get`, `on_set` and `validate`, which are never called at the
    same time, and set `public_attributes` and `public_methods` to what may be reached from elsewhere. Raises
    `ConfigError` naming the keyword. Thread-safe.
    """

    _kv_readable = Addressable._kv_readable | {
        *("alert_routing_key", "calibration", "check_field", "get_on_set", "log_interval", "log_on_set"),
        *("logging_status", "max_absolute_change", "max_fractional_change", "max_interval"),
        *("schedule_interval", "schedule_status"),
    }
    _kv_writable = frozenset(
        (
            *("alert_routing_key", "check_field", "get_on_set", "log_interval", "log_on_set"),
            *("logging_status", "max_absolute_change", "max_fractional_change", "max_interval"),
            *("schedule_interval", "schedule_status"),
        )
    )
    _kv_callable = frozenset(("scheduled_action", "single_schedule"))

    def __init__(self, initial_value: Any = None, **kwargs: Any) -> None:
        name = kwargs.pop("name", None)
        if not isinstance(name, str) or not name:
            raise ConfigError(f"name={name!r}: an endpoint has a name, a text")
        for keyword in kwargs:
            if keyword not in KEYWORDS or keyword == "initial_value":
                raise ConfigError(f"{name}: {keyword!r} is no keyword; there are {', '.join(KEYWORDS)}")
        self.name = name
        self.provider: KVStore | None = None
        try:
            self._kv_configure(initial_value, kwargs)
        except ConfigError as wrong:
            raise ConfigError(f"{name}: {wrong}") from None

    def _kv_configure(self, initial_value: Any, given: dict[str, Any]) -> None:
        self._kv_prepare(
            self.name, number("lockout_ttl", given.get("lockout_ttl", LOCKOUT_TTL)) or LOCKOUT_TTL
        )
        self.description = {keyword: given[keyword] for keyword in DESCRIPTION if keyword in given}
        described = Description.of(self.name, self.description)
        self._kv_described = described
        try:
            self.initial_value = None if initial_value is None else described.check(initial_value)
        except Refused as wrong:
            raise ConfigError(f"initial_value={initial_value!r}: {wrong}") from None
        self._kv_given = frozenset(given)
        self._kv_due = Due()
        self._kv_interval = 0.0
        self._kv_ticket: Ticket | None = None
        self._kv_scheduling = threading.RLock()
        """Held while the ticket is changed, which the provider may do at the same time."""
        self._kv_item: Item | None = None
        self._kv_kept: Any = self.initial_value
        """The value, while there is no item."""
        self._kv_handed: Handed | None = None
        """What the item was last given to show."""
        self._kv_latest: dict[str, Any] | None = None
        self._kv_stored = False
        self._kv_setting: Item | None = None
        """The item that a set which is under way is about."""
        self._kv_scheduled = False
        self._kv_trouble = ""
        self.calibration = given.get("calibration")
        self.get_on_set = given.get("get_on_set", False)
        self.log_on_set = given.get("log_on_set", False)
        self.alert_routing_key = given.get("alert_routing_key", "sensor_value")
        for threshold in ("max_interval", "max_fractional_change", "max_absolute_change"):
            setattr(self, threshold, given.get(threshold, 0))
        self.check_field = given.get("check_field", "value_cal")
        if "schedule_interval" in given and "log_interval" in given:
            raise ConfigError("log_interval: is another name for schedule_interval; give one of the two")
        self.schedule_interval = given.get("schedule_interval", given.get("log_interval", 0))
        self._kv_lowercase = bool(given.get("set_value_lowercase", False))
        map_ = given.get("set_value_map")
        self._kv_map = None if map_ is None else table(map_)
        self._kv_regex = _regex(given.get("extract_raw_regex"))

    # The value: what endpoints of your own override

    def on_get(self, *args: Any, **kwargs: Any) -> Any:
        """The value, as it is in etcd. Override it to ask an instrument; return the raw value.

        Etcd is asked for it, but on schedule it is the item's, which needs no answer.
        """
        item = self._kv_item
        if item is None:
            return self._kv_kept
        return item.value if self._kv_scheduled else item._refresh_here()

    def on_set(self, value: Any) -> Any:
        """Write the value. Override it to tell an instrument; what it returns is in the reply.

        It is given what `validate` has accepted. When an override does not call this, the value is written
        after it.
        """
        self._kv_store(value)

    def validate(self, value: Any) -> Any:
        """The value to set for one that was asked for. Override it to refuse: raise ValueError."""
        return value

    def _kv_store(self, value: Any) -> None:
        item = self._kv_item
        if item is None and self._kv_setting is not None:
            raise Unavailable(f"{self.name}: its service has stopped meanwhile, so the value was not written")
        self._kv_stored = True
        if item is None:
            self._kv_kept = value
        else:
            self._kv_write(item, value)

    def _kv_write(self, item: Item, value: Any) -> None:
        if self.provider is not None:
            self.provider._kv_settle_behind()
        revision = item._write(value)
        # What was polled before and still waits, for all the settling, comes after this.
        if self._kv_handed is None or not self._kv_handed.waits:
            self._kv_handed = Handed(item, value, revision)

    # Requests

    def _kv_check_served(self, channel: Any) -> None:
        if self.provider is not None:
            self.provider._kv_check_served(channel)

    def _kv_lockouts(self) -> tuple[Lockout, ...]:
        provider = self.provider
        return (self._kv_lockout,) if provider is None else (self._kv_lockout, provider._kv_lockout)

    def lock(self, lockout_key: str | None = None, *args: Any, **kwargs: Any) -> dict[str, str]:
        """Accept changes only with a key, ``{'key': …}``: the one given, or a new one.

        Under a lease: it ends after `lockout_ttl` seconds in which nobody has shown the key. Raises the error
        of code 307 when it is locked with another.
        """
        return self._kv_lock(lockout_key, *args, holder="this service", **kwargs)

    def _kv_get(self, values: list[Any], keywords: dict[str, Any]) -> Reply:
        return replied(self._kv_read(*values, **keywords), self._kv_revision())

    def _kv_read(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Look at the value, and show the item what an instrument said. Raises when the calibration fails."""
        found = self._kv_look(*args, **kwargs)
        self._kv_show(found["value_raw"], wait=True)
        if self._kv_trouble:
            raise error("service_error_invalid_value", f"{self.name}: {self._kv_trouble}", found)
        return found

    def _kv_look(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        raw = self.on_get(*args, **kwargs)
        if isinstance(raw, Mapping) and "value_raw" in raw:
            values = dict(raw)
        else:
            values = {"value_raw": self._kv_extract(raw)}
        return self._kv_calibrated(values)

    def _kv_extract(self, raw: Any) -> Any:
        if self._kv_regex is None or not isinstance(raw, str):
            return raw
        found = self._kv_regex.search(raw)
        if found is None:
            raise error("device_error", f"{self.name}: {raw!r} does not match {self._kv_regex.pattern!r}")
        return found["value_raw"]

    def _kv_calibrated(self, values: dict[str, Any]) -> dict[str, Any]:
        trouble = ""
        if self._kv_calibration is not None and "value_cal" not in values and values["value_raw"] is not None:
            try:
                values["value_cal"] = self._kv_calibration(values["value_raw"])
            except Refused as wrong:
                trouble = str(wrong)
        if trouble and trouble != self._kv_trouble:
            log.warning("%s: %s", self.name, trouble)
        self._kv_trouble = trouble
        return values

    def _kv_show(self, raw: Any, *, wait: bool) -> None:
        """Let the item show what `on_get` gave, when that is not from there."""
        item = self._kv_item
        if item is None or type(self).on_get is KVStoreKey.on_get or raw is None:
            return
        handed = self._kv_handed
        pending = handed is not None and handed.pending
        # The item may be behind what is on its way to etcd.
        shown = handed.value if handed is not None and pending else item.value
        if (pending or item._now.revision) and type(shown) is type(raw) and same(shown, raw):
            if pending and wait and self.provider is not None:
                self.provider._kv_settle_behind()
        elif wait:
            self._kv_write(item, raw)
        elif self.provider is not None:
            self._kv_handed = self.provider._kv_write_behind(item, raw)

    def _kv_set(self, values: list[Any], keywords: dict[str, Any]) -> Reply:
        if len(values) != 1:
            raise error("service_error_bad_payload", f"{self.name}: set takes one value, not {len(values)}")
        wanted, held = keywords.pop("if_revision", None), keywords.pop("if_held", ())
        if keywords:
            raise error("service_error_bad_payload", f"{self.name}: set knows no {', '.join(keywords)}")
        value = self._kv_accept(values[0])
        if wanted is not None and self._kv_item is not None and _newest(self._kv_item) != wanted:
            raise error("warning_no_action_taken", f"{self.name}: the value has moved")
        if held and self.provider is not None and (lost := self.provider._kv_lost(held)):
            raise error(
                "warning_no_action_taken",
                f"lock {lost}: is lost, another may hold it by now; nothing was set",
                {"lost": lost},
            )
        self._kv_stored, self._kv_setting = False, self._kv_item
        try:
            result = self.on_set(value)
            if not self._kv_stored:
                self._kv_store(value)
        finally:
            self._kv_setting = None
        if self.get_on_set:
            found = self._kv_read()
            if self.log_on_set:
                self._kv_tell(found)
            return replied(found, self._kv_revision())
        if self.log_on_set:
            self._kv_tell(self._kv_calibrated({"value_raw": value}))
        return replied(result, self._kv_revision())

    def _kv_accept(self, value: Any) -> Any:
        if self._kv_lowercase and isinstance(value, str):
            value = value.lower()
        if self._kv_map is not None:
            value = lookup(self._kv_map, value, f"set_value_map of {self.name}")
        accepted = self.validate(value)
        description = self._kv_described if self._kv_item is None else self._kv_item.description
        try:
            return description.check(accepted)
        except Refused as wrong:
            raise Refused(f"{self.name}: {wrong}") from None

    def _kv_revision(self) -> int:
        item, handed = self._kv_item, self._kv_handed
        if item is None:
            return 0
        if handed is not None and handed.pending and not handed.waits:
            return int(handed.revision)
        return item.revision

    # Telling

    def store_value(self, severity: str) -> None:
        """Send the latest value as an alert, under the routing key ``<severity>.<name>``.

        `KVStore.add_endpoint` binds it to the provider. Raises `Closed` before that.
        """
        raise Closed(f"endpoint {self.name}: belongs to no provider, so nobody sends its alerts")

    def _kv_tell(self, values: dict[str, Any]) -> None:
        self._kv_due.told(values, time.monotonic())
        if self._kv_trouble:
            values = {**values, "calibration_error": self._kv_trouble}
        self._kv_latest = values
        if self.provider is not None:
            self.store_value(self.alert_routing_key)

    # The schedule

    def scheduled_action(self) -> None:
        """Look at the value, and send an alert if one is due."""
        with self._kv_turn:
            self._kv_scheduled = True
            try:
                values = self._kv_look()
            finally:
                self._kv_scheduled = False
            if self._kv_due.is_due(values, time.monotonic()):
                self._kv_show(values["value_raw"], wait=False)
                self._kv_tell(values)

    def single_schedule(self, delay: float) -> None:
        """Do `scheduled_action` once, after ``delay`` seconds."""
        self._kv_scheduler().once(
            number("delay", delay, LONGEST), f"endpoint {self.name}", self.scheduled_action
        )

    def _kv_scheduler(self) -> Scheduler:
        if self.provider is None or self.provider._kv_scheduler is None:
            raise Closed(f"endpoint {self.name}: is not served, so nothing is scheduled")
        return self.provider._kv_scheduler

    @property
    def schedule_interval(self) -> float:
        """Seconds between two looks. Set while these go on, they go on with the new one; 0 ends them."""
        return self._kv_interval

    @schedule_interval.setter
    def schedule_interval(self, seconds: float) -> None:
        interval = number("schedule_interval", seconds, LONGEST)
        if 0 < interval < _SHORTEST:
            raise ConfigError(f"schedule_interval={seconds!r}: is 0, or at least {_SHORTEST} s")
        with self._kv_scheduling:
            self._kv_interval = interval
            if self._kv_ticket is not None:
                self._kv_stop()
                if self._kv_interval:
                    self._kv_start()

    @property
    def log_interval(self) -> float:
        """Another name for `schedule_interval`."""
        return self.schedule_interval

    @log_interval.setter
    def log_interval(self, seconds: float) -> None:
        self.schedule_interval = seconds

    @property
    def schedule_status(self) -> bool:
        """Whether the value is looked at on schedule.

        Set it to ``start`` or ``on``, ``stop`` or ``off``, or ``restart``; or to a bool. Raises `Refused`, a
        ValueError, for anything else, and for a start with no interval.
        """
        return self._kv_ticket is not None

    @schedule_status.setter
    def schedule_status(self, status: str | bool) -> None:
        wanted = _WORDS.get(status) if isinstance(status, str) else status
        with self._kv_scheduling:
            if status == "restart":
                self._kv_stop()
                wanted = True
            if not isinstance(wanted, bool):
                raise Refused(
                    f"{self.name}: schedule_status is start, on, stop, off or restart, not {status!r}"
                )
            if not wanted:
                self._kv_stop()
            elif self._kv_ticket is None:
                self._kv_start()

    @property
    def logging_status(self) -> bool:
        """Another name for `schedule_status`."""
        return self.schedule_status

    @logging_status.setter
    def logging_status(self, status: str | bool) -> None:
        self.schedule_status = status

    def _kv_start(self) -> None:
        if self._kv_interval <= 0:
            raise Refused(f"{self.name}: schedule_interval is 0; set it, then start")
        ticket = self._kv_scheduler().every(self._kv_interval, f"endpoint {self.name}", self.scheduled_action)
        if not ticket.on:
            raise Closed(f"endpoint {self.name}: its service is stopping, so nothing is scheduled")
        self._kv_ticket = ticket

    def _kv_stop(self) -> None:
        with self._kv_scheduling:
            if self._kv_ticket is not None:
                self._kv_ticket.cancel()
                self._kv_ticket = None

    # Settings

    @property
    def calibration(self) -> Any:
        """The calibration as it was given, None for none."""
        return None if self._kv_calibration is None else self._kv_calibration.given

    @calibration.setter
    def calibration(self, given: str | Mapping[Any, Any] | None) -> None:
        self._kv_calibration = None if given is None else Calibration(given)

    @property
    def get_on_set(self) -> bool:
        """Whether a set is answered with what `on_get` gives then."""
        return self._kv_get_on_set

    @get_on_set.setter
    def get_on_set(self, flag: bool) -> None:
        self._kv_get_on_set = _flag("get_on_set", flag)

    @property
    def log_on_set(self) -> bool:
        """Whether each set sends an alert."""
        return self._kv_log_on_set

    @log_on_set.setter
    def log_on_set(self, flag: bool) -> None:
        self._kv_log_on_set = _flag("log_on_set", flag)

    @property
    def alert_routing_key(self) -> str:
        """What alerts are sent under, before the name."""
        return self._kv_routing_key

    @alert_routing_key.setter
    def alert_routing_key(self, key: str) -> None:
        if not isinstance(key, str) or not key:
            raise ConfigError(f"alert_routing_key={key!r}: is a text such as sensor_value")
        self._kv_routing_key = key

    @property
    def max_interval(self) -> float:
        """Seconds after which an alert is due though the value has not moved; 0 for never."""
        return self._kv_due.max_interval

    @max_interval.setter
    def max_interval(self, seconds: float) -> None:
        self._kv_due.max_interval = number("max_interval", seconds)

    @property
    def max_fractional_change(self) -> float:
        """Part of its size by which the value may move without an alert, 0.1 for 10 %; 0 for no threshold."""
        return self._kv_due.max_fractional_change

    @max_fractional_change.setter
    def max_fractional_change(self, part: float) -> None:
        self._kv_due.max_fractional_change = number("max_fractional_change", part)

    @property
    def max_absolute_change(self) -> float:
        """By how much the value may move without an alert; 0 for no threshold."""
        return self._kv_due.max_absolute_change

    @max_absolute_change.setter
    def max_absolute_change(self, change: float) -> None:
        self._kv_due.max_absolute_change = number("max_absolute_change", change)

    @property
    def check_field(self) -> str:
        """Which value the thresholds are for, ``value_cal`` or ``value_raw``."""
        return self._kv_due.check_field

    @check_field.setter
    def check_field(self, field: str) -> None:
        if field not in ("value_cal", "value_raw"):
            raise ConfigError(f"check_field={field!r}: is value_cal or value_raw")
        self._kv_due.check_field = field

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def _newest(item: Item) -> int:
    """The revision of an item's value, as etcd has it; 0 for none."""
    try:
        return int(item.store.client.entry(item.path).revision)
    except NotFound:
        return 0


def _flag(keyword: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{keyword}={value!r}: is true or false")
    return value


def _regex(given: Any) -> re.Pattern[str] | None:
    if given is None:
        return None
    try:
        compiled = re.compile(given)
    except (re.error, TypeError) as wrong:
        raise ConfigError(f"extract_raw_regex={given!r}: {wrong}") from None
    if "value_raw" not in compiled.groupindex:
        raise ConfigError(f"extract_raw_regex={given!r}: names no group (?P<value_raw>…)")
    return compiled
