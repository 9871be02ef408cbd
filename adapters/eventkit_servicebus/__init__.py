"""Azure Service Bus. Needs the extra `servicebus`, and its local server nothing more.

Address: `servicebus://NAMESPACE/QUEUE` or `servicebus://NAMESPACE/TOPIC/SUBSCRIPTION`; a sink is a queue or a topic,
`servicebus://NAMESPACE/TOPIC`. `/$DeadLetterQueue` after a source means its dead letters. Options: `endpoint` for a
local server or emulator, `prefetch` for a source, `sessions` for a sink. It connects as SERVICEBUS_CONNECTION_STRING
says, or else with the credentials that azure-identity finds.
"""

from eventkit_servicebus._adapter import adapter

__all__ = ["adapter"]
