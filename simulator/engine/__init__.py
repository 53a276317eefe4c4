"""The virtual chip as a device: stages, pipeline, clock and worker threads."""
