"""What operators' commands do, over HTTP and files only."""
