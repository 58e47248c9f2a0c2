"""The retriever against raw FAISS and other engines: search, single and concurrent, and the scaling curves."""
