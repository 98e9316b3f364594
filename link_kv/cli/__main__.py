"""``python -m link_kv.cli`` is ``link-kv``."""

from . import main

main()
