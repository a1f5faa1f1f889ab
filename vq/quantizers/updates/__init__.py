"""How codebooks move besides by gradient: one file per rule."""
