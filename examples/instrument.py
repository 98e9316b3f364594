"""An instrument as an endpoint: served by ``link-kv serve -c examples/instrument.yaml``."""

from link_kv.endpoints import KVStoreKey


class Thermostat(KVStoreKey):
    """Holds a temperature; polled, set within its limits, and zeroed by a command."""

    public_methods = ("zero",)

    def __init__(self, limit=80.0, **kwargs):
        super().__init__(**kwargs)
        self.limit, self.offset, self.bath = limit, 0.0, 20.0  # the hardware, for want of one

    def on_get(self):
        return self.bath - self.offset

    def on_set(self, value):
        self.bath = value + self.offset

    def validate(self, value):
        if not 0 <= value <= self.limit:
            raise ValueError(f"{value} is not between 0 and {self.limit}")
        return float(value)

    def zero(self, offset=0.0):
        self.offset = offset
