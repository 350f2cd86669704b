"""Everything that makes the plain path faster and nothing that it needs."""
