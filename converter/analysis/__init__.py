"""Questions about a model: where it runs, what it costs, which shapes, which variables.

Never edits. An answer holds until the model changes.
"""
