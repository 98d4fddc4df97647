"""One file an implementation; each has `attend(call, want) -> Result`."""
