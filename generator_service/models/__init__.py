"""Seq2seq models behind one small interface: encode, open, step, reorder, score."""
