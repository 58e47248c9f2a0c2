"""The `rag` command. It reaches the services through `rag_client` alone; one module per command."""
