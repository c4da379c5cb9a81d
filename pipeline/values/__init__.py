"""What the values of answers look like: profiles in bounded memory, merged over runs, and what moved between two.

It is pure and imports no other part; report, run and cli may import it. It lies below `report`, as `truth` lies above.
"""
