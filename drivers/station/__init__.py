"""The station file: which instrument channel is wired to which heater, modulator or detector."""
