"""The wire contract `rag.v1`: protocol definitions with their generated stubs beside them."""
