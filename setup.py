"""The package's metadata lives in pyproject.toml; this file is for tools that look for setup.py."""

from setuptools import setup

setup()
