"""Configurations: b3j0f.conf revived, texts and types, hot reload, history, and who runs what."""
