"""How good answers and retrieval are: the forms everyone compares with."""
