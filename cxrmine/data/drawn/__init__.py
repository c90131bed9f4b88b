"""The forms that truth is published in: one file each. `read` opens any, `drawn` is what all are read into."""
