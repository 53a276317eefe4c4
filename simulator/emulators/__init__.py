"""Virtual instruments in front of a virtual chip: real command sets over real sockets and serial lines."""
