"""Shards: which part of every batch a process takes.     n items in the whole batch, P processes, r one of them

    part       items [r n / P] up to the next: P contiguous parts of nearly equal size, every item in exactly one
    gradient   g = (1/n) sum_i g_i = (1/P) sum_r s_r m_r           m_r: the mean gradient of part r, n_r its items
    share      s_r = n_r P / n                                     1 where the parts are equal

Gradients are averaged over processes; so each multiplies its mean loss by its share, and the average is the gradient of the whole batch:
the same step as one process makes with it, whatever P is. The order of the data is drawn for the whole batch and then cut.
"""

from typing import NamedTuple


class Shard(NamedTuple):
    """The part of one process among several; alone, everything."""

    process: int = 0
    processes: int = 1

    def part(self, items: int) -> slice:
        """Where this process's part of so many items lies. The first parts are one longer where they cannot be equal.

        >>> [Shard(process, 3).part(8) for process in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        small, longer = divmod(items, self.processes)
        begin = self.process * small + min(self.process, longer)
        return slice(begin, begin + small + (self.process < longer))

    def share(self, items: int) -> float:
        """What the mean loss of this process's part is multiplied by.

        >>> [Shard(process, 3).share(8) for process in range(3)]
        [1.125, 1.125, 0.75]
        """
        own = self.part(items)
        return (own.stop - own.start) * self.processes / items

    def refuse_fewer(self, what: str, items: int, cure: str) -> None:
        """Raise ValueError where a batch of so many items leaves a process without any."""
        if items < self.processes:
            raise ValueError(
                f"{what}: expected at least {self.processes}, one for each of the {self.processes} processes, got {items}. {cure}"
            )


WHOLE = Shard()
