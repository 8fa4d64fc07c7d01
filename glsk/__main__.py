"""``python -m glsk``: the command line."""

from _glsk_command import main

if __name__ == "__main__":
    main()
