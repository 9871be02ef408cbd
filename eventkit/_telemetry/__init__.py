"""What the worker tells: frozen records, and the observers that receive them."""
