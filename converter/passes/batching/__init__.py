"""Batches requests inside the graph, and refuses what cannot be batched.

Edits calls and functions around BatchFunction ops. Never changes what a row computes: `rows` proves it.
"""
