"""Computes and stores in bfloat16 what can bear it.

Edits types, casts, constants and the storage of variables. Never changes a signature's types.
"""
