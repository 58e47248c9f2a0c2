"""Wire package `rag`."""
