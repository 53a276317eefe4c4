"""Data sets: sources, splits and encoding."""
