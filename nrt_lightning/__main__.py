"""`python -m nrt_lightning`: the same as the command `nrt-lightning`."""

from nrt_lightning.cli.main import main

if __name__ == "__main__":
    main()
