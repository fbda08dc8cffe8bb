"""Directory to model and model to directory, all or nothing.

The input is only read; an output appears whole or not at all. Never changes what a model means.
"""
