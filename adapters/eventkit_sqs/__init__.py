"""AWS SQS, standard and FIFO queues. Needs the extra `sqs`; its local server needs the extra `local`.

Address: `sqs://orders?region=eu-north-1`, by the queue's name; by its ARN, `sqs://arn:aws:sqs:…`; or by its URL,
`sqs://https://sqs.…`. Options: `region`, `endpoint`, and `unwrap=off` to leave the envelopes of SNS, EventBridge and
S3 closed. A `sqs://orders.fifo` keeps order per key.
"""

from eventkit_sqs._adapter import adapter

__all__ = ["adapter"]
