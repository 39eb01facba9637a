"""Session stickiness: which session, which rank, and which KV blocks are worth keeping. Pure Python."""
