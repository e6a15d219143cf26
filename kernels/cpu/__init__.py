"""The CPU backend: products, sweeps and losses as jitted loops, threads as plain Python threads."""
