"""The command line `nrt-lightning`. A command that is no method of Lightning's Trainer has a file with a `main`."""
