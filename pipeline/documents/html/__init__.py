"""Web pages: the main text of an article, or all visible text."""
