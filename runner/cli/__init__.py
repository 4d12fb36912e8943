"""What does a user type, and what is printed?

The only reader of the command line; each command imports what it needs, so that `--help` is quick.
May import: everything.
"""
