"""Commands that are no methods of Lightning's Trainer; each module has a `main` that takes the command's arguments."""
