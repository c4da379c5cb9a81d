"""PDF: the text layer, form fields and annotations, and whether that text can be one."""
