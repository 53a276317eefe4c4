"""The physics of the chip, one effect per file."""
