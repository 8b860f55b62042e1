"""`python -m gradprix`."""

from gradprix.cli import main

if __name__ == "__main__":
    main()
