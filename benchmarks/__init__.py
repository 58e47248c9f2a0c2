"""Programs that measure, their results, and the one that copies results into the README."""
