"""Readouts: power meters and converters behind the detectors, one file per instrument."""
