"""The options: text in, frozen slices out; and the settings of a run.

Refuses whatever is wrong with options that needs no model to see. Never imports TensorFlow, never reads a model.
"""
