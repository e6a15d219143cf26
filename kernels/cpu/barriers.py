"""Barriers alone, to time them: machines with distant cores differ most in these."""

from .workers import barrier, gang, job, named_job, program


@named_job("barriers")
def _barriers(mailbox, found, count, rank, size):
    if rank == 0:
        found[0] = size
    for step in range(count):
        barrier(mailbox, rank, size, step + 1)


def build_barriers():
    """A gang that does nothing but barriers, to time them; a program."""

    @program("barriers alone")
    def run(mailbox, threads, found, count):
        """Run `count` barriers.

        mailbox, threads : the team, and how many of its threads may join
        found : (1,) int64, takes the number of members
        count : barriers
        """
        function, data = job("barriers", (mailbox, found, count))
        gang(mailbox, threads, function, data)

    return run
