"""What the chapters and the commands set up, run and compare, by part of the book: data in, data out.

Nothing here draws; the forms are in ``seamref.show``.  Standard library only, like the machine itself.
"""
