"""Learning: the loop, its policies, and the run folder."""
