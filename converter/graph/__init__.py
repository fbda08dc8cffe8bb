"""Any GraphDef: the model in memory, its functions, nodes and references, and the primitives that edit them.

Alone spells references and builds nodes. Never says TPU, bfloat16 or batch.
"""
