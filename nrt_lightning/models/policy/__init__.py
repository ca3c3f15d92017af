"""The policy: a causal language model with its tokenizer and marker."""
