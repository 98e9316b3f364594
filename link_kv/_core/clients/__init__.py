"""Clients of one's own: verbs, answers, and threads that behave."""
