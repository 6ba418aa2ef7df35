"""The article's recipe in a folder: planned, trained, scored, and told beside the article's results."""
