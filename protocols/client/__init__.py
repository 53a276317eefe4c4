"""A device on the far side of a socket, used like one in the same process."""
