"""``python -m benchmark``: see ``benchmark.cli``."""

from benchmark.cli import main

if __name__ == "__main__":  # worker processes import this module without running it
    main()
