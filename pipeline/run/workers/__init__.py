"""Who processes documents: threads of this process, and worker processes. Imported by the runner and the session."""
