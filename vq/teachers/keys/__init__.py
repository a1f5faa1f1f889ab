"""Published keys of teachers -> keys of their networks, one file per family. A key without a rule keeps its name.

``TransformerTeacher.fill`` compares the result with the network: what is missing or left over is an error.
"""
