"""How the weights of a model are laid out over processes."""
