"""The station file: which instrument channel is connected to which heater, modulator or detector."""
