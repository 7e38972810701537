"""Which questions are left out, so that no answer can be guessed from the words of its question.

Most of what can be asked has a usual answer: things that entered within 15 seconds are mostly one, and the sign has
mostly changed. A model that is asked as it comes learns that and looks no further (balanced answers: VQA v2, Goyal et
al., 2017, arXiv:1612.00837).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from streamvlm.world.evenness import answer_keys
from streamvlm.world.questions import Question

_SORTS = 12  # answers to the same words; where there are more, none is usual
_ENOUGH = 20  # questions with the same words, to know
_LEAST = 0.06  # of the most usual answer's number, what a rarer one counts as at least: else nearly all is left out
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Odds:
    """How likely a question that was made up is asked; 1 where nothing is known of its words."""

    kept: Mapping[Key, float] = field(default_factory=dict)

    def keep(self, question: Question, rng: random.Random) -> bool:
        """Whether to ask it."""
        return rng.random() < self.kept.get(_key(question), 1.0)


def even(questions: Iterable[Question]) -> Odds:
    """The odds at which questions like these would have even answers to the same words, and even forms of a kind."""
    counts = Counter(_key(question) for question in questions)
    kept = dict.fromkeys(counts, 1.0)
    for keys in _grouped(counts, 3).values():
        numbers = [counts[key] for key in keys]
        rarest = max(min(numbers), _LEAST * max(numbers))
        if 1 < len(keys) <= _SORTS and sum(numbers) >= _ENOUGH:
            kept |= {key: min(1.0, rarest / counts[key]) for key in keys}
    left: dict[Key, float] = defaultdict(float)
    for key, number in counts.items():
        left[key[:2]] += number * kept[key]
    for forms in _grouped(left, 1).values():
        fewest = min(left[form] for form in forms)
        factor = {form: max(_LEAST, fewest / left[form]) for form in forms}
        kept |= {key: kept[key] * factor[key[:2]] for key in counts if key[:2] in factor}
    return Odds(kept)


def _grouped(keys: Iterable[Key], length: int) -> dict[Key, list[Key]]:
    """Keys by how they begin."""
    groups: dict[Key, list[Key]] = {}
    for key in keys:
        groups.setdefault(key[:length], []).append(key)
    return groups


def _key(question: Question) -> Key:
    return answer_keys(question)[-1]
