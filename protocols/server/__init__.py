"""A device on the network: one socket in front of any `PhotonicDevice`."""
