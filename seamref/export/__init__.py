"""What others hold themselves against: a kit of vectors, tables and headers, made from declarations by the machine.

A set (:mod:`seamref.export.form`) is its inputs, and one function that lets the machine answer an input.  Files,
schemas and pages come from the same declaration (:mod:`seamref.export.kit`), so that nothing is said twice.

The room stands above all that answers a question and below the commands: it asks every other room, and decides nothing.
What an implementation is held against must never depend on how it is written down, so no room asks this one.
"""
