"""A cluster of three with faults, what programs did to it meanwhile, and whether that holds together.

A program, not a pytest suite: ``python -m tests.faults --help``. What it checks, and what it found, is in
``docs/explanation/proof.md``.
"""
