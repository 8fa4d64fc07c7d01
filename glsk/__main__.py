"""``python -m glsk``: the command line."""

from glsk.cli import app

if __name__ == "__main__":
    app(prog_name="python -m glsk")
