"""Contract between controllers and devices: device interface, limits, errors, wire protocol, server and client."""
