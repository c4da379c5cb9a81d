"""Selection of the documents that a run processes: new and changed ones, repeats, and copies of others."""
