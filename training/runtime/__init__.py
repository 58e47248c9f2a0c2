"""What every training program shares: the loop, master weights, resumable states, logs, the progress display."""
