"""What an event from Service Bus costs: the worker beside loops by hand on the same SDK. `make bench-servicebus`."""
