"""How long sessions pause between two turns, those that come back."""

from __future__ import annotations

_MOST_REMEMBERED = 512
_SHORTEST_SECONDS = 0.1
_STEP = 1.5


class Pauses:
    """The mean pause; of so many latest ones that it stands still while their lengths merely vary.

    Args:
        assumed: what counts as the first one, in seconds.

    Attributes:
        mean: in seconds. It moves only when the true one has moved by half: what is computed with it holds
            until then.
    """

    def __init__(self, assumed: float) -> None:
        self.mean = self._true_mean = assumed
        self._seen = 1

    def note(self, seconds: float) -> bool:
        """Take in a pause; tell whether `mean` has moved."""
        self._seen = min(self._seen + 1, _MOST_REMEMBERED)
        self._true_mean += (seconds - self._true_mean) / self._seen
        mean = max(self._true_mean, _SHORTEST_SECONDS)
        if 1 / _STEP < mean / self.mean < _STEP:
            return False
        self.mean = mean
        return True
