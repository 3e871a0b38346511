"""The TDX module: the part of it that loading and updating touch.

:mod:`~seamref.tdxmodule.build` and :mod:`~seamref.tdxmodule.status` are plain data; the program itself is
:mod:`~seamref.tdxmodule.program`, which registers itself when it is imported.
"""
