"""One module per document format: bytes in, `Document` out, `UnreadableFile` for what cannot be read."""
