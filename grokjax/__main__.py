"""python -m grokjax: the command line."""

from grokjax.cli.main import main

if __name__ == "__main__":
    main()
