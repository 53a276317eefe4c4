"""Run folders: everything that a session writes to disk."""
