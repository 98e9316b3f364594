"""The cluster itself: its health, its users and roles, and what an administrator may ask."""
