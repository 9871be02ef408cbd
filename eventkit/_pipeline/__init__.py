"""The path of an event from a source to its settlement, one module a step."""
