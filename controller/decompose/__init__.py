"""Matrix decompositions: from a target matrix to the phases of a mesh, and figures of merit of the result."""
