"""Training the retriever's bi-encoder: contrastively, or from what a frozen reader finds useful."""
