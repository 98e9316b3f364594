"""Endpoints: their file, requests and replies, lockout, schedule, alerts and records."""
