"""The forms that datasets come in, a file each: SHAPE, recognise(tree) and read(tree)."""
