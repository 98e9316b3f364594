"""The service that `calling` calls: ``python serving.py WHICH KEYWORDS``."""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    which, keywords = sys.argv[1], json.loads(sys.argv[2])
    if which == "msl":
        from msl.network import Service
    else:
        from link_kv.services import Service

    class Echo(Service):
        def echo(self, value: Any) -> Any:
            return value

        def notify(self, value: Any) -> None:
            self.emit_notification(value)

    Echo().start(**keywords)


if __name__ == "__main__":
    main()
