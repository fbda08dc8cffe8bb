"""What a conversion does to a model, a room for each pass.

A pass plans and then carries out, through the primitives of `graph`; twice does no more than once. Passes never import
each other: they meet in the model and in `analysis` alone. The contract: `pass_result`.
"""
