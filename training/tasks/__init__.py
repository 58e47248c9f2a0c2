"""Tasks beyond question answering on the default generator: fact verification, query rewriting, summarisation."""
