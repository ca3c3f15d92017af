"""What any engine with weights of its own needs."""
