"""The command line `nrt-lightning`. Each command beyond those of Lightning's Trainer is a file with a `main`."""
