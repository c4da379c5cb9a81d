"""Which documents a run processes: new and changed ones, those to be done again, and copies of others."""
