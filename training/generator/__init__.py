"""Training of the embedded default generator from a pretrained encoder (``python -m training.generator --help``)."""
