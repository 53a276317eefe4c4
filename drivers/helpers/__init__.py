"""Helpers shared by drivers: checks, SCPI messages, command tables."""
