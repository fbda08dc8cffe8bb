"""Checkpoints: bytes on disk, read and rewritten in streams.

Knows indices, shards and checksums of TensorBundles. Never knows a graph, never imports TensorFlow, never edits a file
that it did not make.
"""
