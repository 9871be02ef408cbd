"""Decisions without I/O: every function here gets `now` and `rng` as arguments."""
