"""The retriever: passages for a query, from collections that change while they are searched."""
