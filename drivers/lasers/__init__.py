"""Lasers, one file an instrument."""
