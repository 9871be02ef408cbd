"""AWS SQS, standard and FIFO queues. Needs the extra `sqs`; its local server needs the extra `local`.

Address: `sqs://orders?region=eu-north-1`, where `orders` is a queue's name; `sqs:///URL` and `sqs:///ARN` name it otherwise.
"""

from eventkit_sqs._adapter import adapter

__all__ = ["adapter"]
