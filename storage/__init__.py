"""Keep a study and its files behind one database URL."""
