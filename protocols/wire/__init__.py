"""Messages, keys and shared memory: what client and server have in common."""
