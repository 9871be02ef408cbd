"""Events from and to Azure Service Bus: `servicebus://NAMESPACE/QUEUE`. So far, its local server."""
