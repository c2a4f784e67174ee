"""One thin file per lever: what its technique found becomes a proposed stack, and the stage that serves it."""
