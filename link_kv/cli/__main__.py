"""``python -m link_kv.cli`` is ``link-kv``."""

from . import main

if __name__ == "__main__":
    main()
