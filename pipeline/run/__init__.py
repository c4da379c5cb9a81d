"""One run: the threads and the loop that connects them are in this folder, their parts in its subfolders.

    selection ─▶ reader ─▶ dispatch ─▶ workers ─▶ document | windows ─▶ display, output ─▶ ending

`cli`, `engines`, `review` and `api` may import it; it imports every folder below them, and never `cli`.
"""
