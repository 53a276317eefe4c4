"""Real instruments over VISA and serial, composed into a bench that is a device."""
