"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# HYPOTHESIS_PROFILE=long runs each property on 100,000 examples. No deadline: a busy machine is no failure.
# CI takes the same examples each time, so that a change that passes there passes again.
settings.register_profile("default", deadline=None, derandomize="CI" in os.environ)
settings.register_profile("long", deadline=None, max_examples=100_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
