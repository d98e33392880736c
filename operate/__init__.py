"""What operators do with a running server: over HTTP and files only."""
