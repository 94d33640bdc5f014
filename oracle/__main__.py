"""`python -m oracle`."""

from layer_oracle import run

if __name__ == "__main__":
    run()
