"""Devices as a session uses them: device strings, processes, reconnection and compatibility."""
