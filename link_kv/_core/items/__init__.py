"""Stores and items: descriptions, what they accept, where they are, and what they hold."""
