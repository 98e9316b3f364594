"""Services and links: the registry, the direct connection, and who may call."""
