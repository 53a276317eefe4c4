"""Instruments composed into one device."""
