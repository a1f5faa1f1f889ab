"""Reports as a single HTML page with embedded charts and images. They need no other file and no network."""
