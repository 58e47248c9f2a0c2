"""The public face: questions in, cited answers out. Read `pipeline.py` first."""
