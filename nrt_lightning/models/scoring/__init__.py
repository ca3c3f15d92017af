"""Scoring forwards: log-probs of completions, with or without shared prompts."""
