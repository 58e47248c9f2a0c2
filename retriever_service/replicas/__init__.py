"""Read replicas: a writer publishes its collections to a store that it shares with readers, which follow it."""
