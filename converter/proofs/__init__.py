"""Proves a result without a TPU: the CPU twin, and its answers beside the original's.

Runs models. Never changes what is written.
"""
