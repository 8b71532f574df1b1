"""`python -m mullet` is `mullet`."""

from mullet.cli import main

if __name__ == "__main__":
    main()
