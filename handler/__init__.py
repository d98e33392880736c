"""Everything Python that goes into the archive; imports nothing of ours but itself."""
