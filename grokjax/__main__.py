"""python -m grokjax: the command line."""

from grokjax.cli.main import main

main()
