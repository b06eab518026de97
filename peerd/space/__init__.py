"""What the data directory takes on the disk, and taking away what nobody needs any more."""
