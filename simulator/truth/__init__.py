"""True values, exact gradients and reference readings of a chip in double precision, for tests and scripts only."""
