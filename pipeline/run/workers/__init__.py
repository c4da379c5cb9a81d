"""The workers that process documents: threads of this process, and worker processes. Imported by runner and session."""
