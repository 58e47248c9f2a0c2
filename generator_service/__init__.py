"""The generator service: an answer from a question and its passages."""
