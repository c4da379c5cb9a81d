"""Long documents that are cut into windows: cut, asked window by window, and merged. Imported by the rest of run/."""
