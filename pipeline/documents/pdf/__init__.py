"""PDF: the text layer, form fields and annotations, and a check of that text."""
