"""Everything that makes the plain path faster and nothing that it needs.

A network's options name the modules of this folder that may serve it; each holds one class, ``FAST``, of
:class:`thriftylib.fast.serving.Fast`.
"""
