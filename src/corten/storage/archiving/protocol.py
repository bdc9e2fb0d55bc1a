"""What the daemon and the archive server say to each other: apart, so that the daemon does not load the server."""

FORK = b"fork"
"""With the control socket of the worker that is to be made."""
MAX_MESSAGE = 1 << 20
