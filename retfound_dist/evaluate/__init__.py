"""A checkpoint turned into evidence."""
