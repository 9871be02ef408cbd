"""What an event from Pub/Sub costs: the worker, a loop by hand, Google's threaded client. `make bench-pubsub`."""
