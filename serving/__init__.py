"""The runtime that the three services share. It knows nothing of retrieval or generation."""
