"""Client of a device server: a device in another process, used like one in the same process."""
