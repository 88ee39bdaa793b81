"""Package of the embedded service; it imports nothing by itself."""
