"""Layouts of a model's weights over processes."""
