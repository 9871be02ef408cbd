"""What an event from SQS costs: the worker, a minimal loop by hand and Celery, in one run. `make bench-sqs`.

The server is the local one of the adapter, in a process of its own, new for each run and filled beforehand. Each
consumer runs in a process of its own until SIGTERM, and tells what it took: the CPU of its process and children,
user and system, from when it is connected and about to receive until it has ended; what starting takes is left out.
"""
