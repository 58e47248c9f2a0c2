"""Decoding programs: how passages and a seq2seq model become token sequences. Knows no text, queue or wire."""
