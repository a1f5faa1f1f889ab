"""HTML pages that need nothing but themselves, and charts in them."""
