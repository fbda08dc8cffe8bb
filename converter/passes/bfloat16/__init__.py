"""Computes and stores in bfloat16 what can bear it.

Edits types, casts, constants and the storage of variables. Never changes a signature's types.

One way through the room: `region` and `copies` say where, `type_graph` (made by `scan`) what has to agree, `decisions`
and `variables` what becomes bfloat16; `storage` and `rewrite` put that into `edits`, which `carry_out` alone writes.
"""
