"""Recordings of the real code, replayed here: four formats, one frame.

``vectorset`` what a set of vectors is (:class:`~seamref.conformance.vectorset.VectorSet`)
``frame``     the run over many files
``reading``   files and strict readers: every value is of the format, or an error names its path
``registry``  which module replays which format, and how a document of it is known

One module for each format: ``pseamldr``, ``npseamldr``, ``tdxmodule``, ``linux``.  A module declares its format by one
object named ``VECTORS``; nothing else has to be told about it but its row in ``registry``.
"""
