"""What several drivers share: checks, SCPI, command tables."""
