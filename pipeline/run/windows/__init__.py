"""Long documents: cut into windows, sent window by window, and merged. Imported by the rest of run/."""
