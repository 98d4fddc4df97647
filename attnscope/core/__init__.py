"""Types, names and files that every layer speaks; needs no torch."""
