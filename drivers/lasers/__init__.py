"""Lasers, one file per instrument."""
