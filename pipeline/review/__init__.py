"""The local page on which a person judges answers: documents chosen, read again, shown, and judgements saved as gold.

Only cli may import it. It must not call a model or write to an output.
"""
