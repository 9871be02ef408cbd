"""What the benchmarks of the clouds share: whom they run against whom, on which server, and how that is told.

The server is the local one of the adapter, in a process of its own, new for each run and filled beforehand. Each
consumer runs in a process of its own until SIGTERM, and tells what it took: the CPU of its process, of all its
threads and of its children, user and system, from when it is connected and about to receive until it has ended; what
starting takes is left out.
"""
