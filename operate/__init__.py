"""What the operator's commands do: over HTTP and files only."""
