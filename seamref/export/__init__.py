"""What others hold themselves against: a kit of vectors, tables and headers, made from declarations by the machine.

A set (:mod:`seamref.export.form`) is its inputs, and one function that lets the machine answer an input.  Files,
schemas and pages come from the same declaration (:mod:`seamref.export.kit`), so that nothing is said twice.
"""
