"""Puts functions on the TPU: stubs, TPU calls, cluster markers, sharding.

Edits the functions that the options name and the way to them. Never changes what is computed.
"""
