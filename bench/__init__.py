"""What an event costs: the worker beside the same work written by hand, in one run. `make bench`."""
