"""One module per task: what is retrieved, and what is made of it."""
