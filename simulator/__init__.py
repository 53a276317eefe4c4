"""The virtual chip: volts in, photocurrents out, in a process of its own."""
