"""Calibration: the twin, a model of the chip, and its fit to readings."""
