"""What only tests and scripts may know of a chip, in double precision."""
