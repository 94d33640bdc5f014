"""`python -m oracle`."""

from oracle.cli import run

if __name__ == "__main__":
    run()
