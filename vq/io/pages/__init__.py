"""Self-contained HTML pages, and charts in them."""
