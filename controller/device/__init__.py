"""Devices as a session uses them: addresses, processes, reconnection, compatibility."""
