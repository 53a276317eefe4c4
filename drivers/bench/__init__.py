"""Instruments composed into a device."""
