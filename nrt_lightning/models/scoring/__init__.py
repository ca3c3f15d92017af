"""The scoring forward: log-probs of completions, with the prompt shared or not."""
