"""Training programs: generators today, joint retriever and generator training beside them."""
