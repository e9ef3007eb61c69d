"""How long to wait between tries: longer each time, and never in step with anyone else."""

from collections.abc import Callable, Iterator


def delays(*, base: float, cap: float, rng: Callable[[], float]) -> Iterator[float]:
    """Seconds to wait before the second try, the third, and so on, without end.

    The n-th lies between half and the whole of `base * 2**n`, never above `cap`; where in between says `rng`, which returns
    numbers in [0, 1). Raises ValueError unless 0 < base <= cap.
    """
    if not 0 < base <= cap:
        raise ValueError(f"a backoff needs 0 < base <= cap, not {base!r} and {cap!r}")
    return _delays(base, cap, rng)


def _delays(ceiling: float, cap: float, rng: Callable[[], float]) -> Iterator[float]:
    while True:
        # Half is certain, so that a struggling peer is always left alone for a while; half is chance, against stampedes.
        yield ceiling * (0.5 + 0.5 * rng())
        ceiling = min(ceiling * 2, cap)
