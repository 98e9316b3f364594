"""Talking to etcd: options, channels, calls and their failures, and the bytes of requests."""
