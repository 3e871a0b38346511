"""Commands of `python -m seamref`, one module each: ``HELP``, ``add_arguments(parser)``, ``run(args) -> int``.

``run`` returns 0, or 1 when the answer is "no".  Bad input is a SeamrefError; the command line makes it exit code 2.
A module imports what it needs inside ``run``, so that the list of commands stays quick.
"""
