"""Commands beyond those of Lightning's Trainer: one file per command, with a `main` that takes its arguments."""
