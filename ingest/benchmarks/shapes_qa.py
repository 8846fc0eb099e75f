"""Questions about drawn scenes: existence, colour, place, counting, relation, and style over three images.

No file is needed. A quirk: every answer is one of the question's options, and each text says nothing of them.
"""

DATASET = "shapes"
KINDS = ()
