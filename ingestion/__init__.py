"""Documents to passages: walking files, reading them, cutting them, and planning what a collection needs.

It knows nothing of services, gRPC or collections: bytes and names go in, passages with stable ids come out.
Read first: `reading.py`, then `document.py` and `chunker.py`.
"""
