"""Training: one run, populations of runs, the loop on the host, final keys."""
