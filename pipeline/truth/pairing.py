"""The one-to-one assignment of two lists with the greatest weight, by the Hungarian method.

It must not know the type of the items: the caller passes in the weight of each pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MOST_EXACT = 200
"""Largest side of an exact assignment: at this size, the n³ steps take about a second."""

Weights = Mapping[tuple[int, int], int]
"""(left, right) → weight above 0; a pair that is missing is impossible."""


def assignment(weights: Weights) -> tuple[list[tuple[int, int]], bool]:
    """Return the pairs of the heaviest assignment in order, and whether part of it is a greedy approximation."""
    pairs: list[tuple[int, int]] = []
    approximate = False
    for lefts, rights in _components(weights):
        if max(len(lefts), len(rights)) > MOST_EXACT:
            approximate = True
            pairs += _pair_greedily(weights, lefts, rights)
        elif len(lefts) <= len(rights):
            pairs += _hungarian(weights, lefts, rights)
        else:
            transposed = {(right, left): weight for (left, right), weight in weights.items()}
            pairs += [(left, right) for right, left in _hungarian(transposed, rights, lefts)]
    return sorted(pairs), approximate


def _components(weights: Weights) -> list[tuple[list[int], list[int]]]:
    """Return the groups of items that possible pairs connect; each group is solved alone."""
    by_left: dict[int, list[int]] = {}
    by_right: dict[int, list[int]] = {}
    for left, right in weights:
        by_left.setdefault(left, []).append(right)
        by_right.setdefault(right, []).append(left)
    unpaired = dict.fromkeys(sorted(by_left))
    groups: list[tuple[list[int], list[int]]] = []
    while unpaired:
        first = next(iter(unpaired))
        lefts: set[int] = {first}
        rights: set[int] = set()
        border = [first]
        while border:
            reached = {right for left in border for right in by_left[left]} - rights
            rights |= reached
            border = [left for left in {left for right in reached for left in by_right[right]} if left not in lefts]
            lefts.update(border)
        for left in lefts:
            del unpaired[left]
        groups.append((sorted(lefts), sorted(rights)))
    return groups


def _pair_greedily(weights: Weights, lefts: Sequence[int], rights: Sequence[int]) -> list[tuple[int, int]]:
    inside = set(lefts)
    free = set(rights)
    pairs: list[tuple[int, int]] = []
    for left, right in sorted((pair for pair in weights if pair[0] in inside), key=lambda pair: (-weights[pair], pair)):
        if left in inside and right in free:
            inside.remove(left)
            free.remove(right)
            pairs.append((left, right))
    return pairs


def _hungarian(weights: Weights, rows: Sequence[int], columns: Sequence[int]) -> list[tuple[int, int]]:
    """Return the heaviest assignment of rows to columns; there must be at least as many columns as rows.

    Shortest augmenting paths with potentials: each row in turn is assigned along the cheapest path of exchanges, where
    a cost is a negative weight, and 0 leaves a row without a partner.
    """
    size = len(columns)
    costs = [[-weights.get((row, column), 0) for column in columns] for row in rows]
    row_potential = [0] * (len(rows) + 1)
    column_potential = [0] * (size + 1)
    row_of = [0] * (size + 1)  # the row, from 1, that a column is assigned to; 0 for none
    for row in range(1, len(rows) + 1):
        row_of[0] = row
        column = 0
        least: list[float] = [float("inf")] * (size + 1)
        came_from = [0] * (size + 1)
        visited = [False] * (size + 1)
        while row_of[column]:
            visited[column] = True
            current = row_of[column]
            delta = float("inf")
            nearest_column = 0
            for candidate in range(1, size + 1):
                if visited[candidate]:
                    continue
                cost = costs[current - 1][candidate - 1] - row_potential[current] - column_potential[candidate]
                if cost < least[candidate]:
                    least[candidate] = cost
                    came_from[candidate] = column
                if least[candidate] < delta:
                    delta = least[candidate]
                    nearest_column = candidate
            for candidate in range(size + 1):
                if visited[candidate]:
                    row_potential[row_of[candidate]] += int(delta)
                    column_potential[candidate] -= int(delta)
                else:
                    least[candidate] -= delta
            column = nearest_column
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    matched = [(rows[row - 1], columns[number]) for number, row in enumerate(row_of[1:]) if row]
    return [pair for pair in matched if pair in weights]
