"""The virtual chip, a device that runs in its own process: voltages in, photocurrents out."""
