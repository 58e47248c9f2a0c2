"""Joint training: the generator and the question encoder learn together from p(answer | question)."""
