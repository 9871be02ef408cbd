"""What an event from SQS costs: the worker, a minimal loop by hand and Celery, in one run. `make bench-sqs`."""
