"""Adapters (LoRA) and quantized bases."""
