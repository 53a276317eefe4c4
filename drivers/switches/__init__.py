"""Optical switches, one file per instrument."""
